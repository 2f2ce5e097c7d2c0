{{- define "palyra.name" -}}
{{- printf "%s-palyra" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "palyra.selector" -}}
app.kubernetes.io/name: palyra
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "palyra.labels" -}}
{{ include "palyra.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "palyra.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Blocks of a family, without what is denied inside them: an exception must lie in its block. */}}
{{- define "palyra.blocks" -}}
{{- $denied := .Values.network.deniedCIDRs -}}
{{- range $cidr := .Values.network.allowedCIDRs }}
{{- $family := ternary "6" "4" (contains ":" $cidr) }}
- ipBlock:
    cidr: {{ $cidr | quote }}
    {{- $inside := list }}
    {{- range $denied }}
    {{- if eq $family (ternary "6" "4" (contains ":" .)) }}{{ $inside = append $inside . }}{{ end }}
    {{- end }}
    {{- with $inside }}
    except:
      {{- range . }}
      - {{ . | quote }}
      {{- end }}
    {{- end }}
{{- end }}
{{- end -}}
