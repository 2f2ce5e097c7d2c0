"""The Helm chart, rendered by Helm's own library: it takes good values only, what it renders fits
the schemas of Kubernetes, and what makes it safe is in every rendering.
"""

from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError
from ruamel.yaml import YAML
from yamllint import linter
from yamllint.config import YamlLintConfig

from palyra_egress.cli.parser import make_parser as egress_parser
from palyra_fleet.cli.parser import make_parser as fleet_parser
from palyra_fleet.private_files import OPERATOR_TOKEN, VAULT_KEY

CHART: Final = Path(__file__).parent.parent.parent / "deploy" / "helm" / "palyra"
OLDEST, NEWEST = "1.29", "1.37"
LEAST: Final = {"policy": {"existingConfigMap": "palyra-policy"}}
MOST: Final = {
    **LEAST,
    "fleet": {"remote": {"enabled": True}},
    "network": {"metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]},
    "podDisruptionBudget": {"enabled": True},
    "secrets": {
        "operatorToken": {"existingSecret": "palyra-operator"},
        "vaultMasterKey": {"existingSecret": "palyra-vault"},
    },
    "state": {"storageClass": "fast"},
    "serviceAccount": {"annotations": {"a.example/b": "c"}},
    "images": {"pullSecrets": [{"name": "registry"}]},
    "nodeSelector": {"kubernetes.io/os": "linux"},
}
WAYS: Final = {"least": LEAST, "most": MOST}

type Manifests = list[dict[str, Any]]


@pytest.fixture(params=WAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    rendered = Chart.load(CHART).render(WAYS[request.param], name="sample", namespace="agents")
    return [
        one
        for name, text in rendered.items()
        if name.endswith(".yaml")
        for one in YAML(typ="safe").load_all(text)
        if one
    ]


def of_kind(manifests: Manifests, kind: str, ending: str = "") -> dict[str, Any]:
    (found,) = [
        one
        for one in manifests
        if one["kind"] == kind and one["metadata"]["name"].endswith(ending)
        if ending or kind != "NetworkPolicy"
    ]
    return found


def pod(manifests: Manifests) -> dict[str, Any]:
    spec: dict[str, Any] = of_kind(manifests, "StatefulSet")["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("way", WAYS)
def test_helm_finds_no_fault(way: str) -> None:
    found = lint(CHART, WAYS[way], strict=True)
    said = [one for one in found["messages"] if "icon is recommended" not in one["error"]]
    assert (said, found["errors"]) == ([], [])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "/policy/existingConfigMap"),
        ({**LEAST, "polcy": {}}, "'polcy'"),
        ({**LEAST, "proxy": {"port": 80}}, "/proxy/port"),
        ({**LEAST, "proxy": {"hostNetwork": True}}, "'hostNetwork'"),
        ({**LEAST, "workers": {"podLabels": None}}, "/workers"),
        ({**LEAST, "images": {"egress": "registry.example/palyra egress"}}, "/images/egress"),
        ({**LEAST, "secrets": {"operatorToken": {"value": "t"}}}, "'value'"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_values_that_are_not_known_or_not_good_refuse_the_release(
    values: dict[str, Any], told: str
) -> None:
    with pytest.raises(HelmError, match=told):
        Chart.load(CHART).render(values, name="sample")


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_everything_fits_the_schemas_of_kubernetes(manifests: Manifests, version: str) -> None:
    for one in manifests:
        assert kubernetes_validate.validate(one, version, strict=True)


def test_the_schemas_are_ones_that_find_faults(manifests: Manifests) -> None:
    faulty = of_kind(manifests, "StatefulSet") | {"spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(faulty, NEWEST, strict=True)


def test_the_yaml_is_tidy() -> None:
    rules = YamlLintConfig(
        "{extends: default, rules: {line-length: {max: 140}, document-start: disable,"
        " braces: {max-spaces-inside: 0}, comments: {min-spaces-from-content: 1}}}"
    )
    rendered = Chart.load(CHART).render(MOST, name="sample", namespace="agents")
    texts = {name: text for name, text in rendered.items() if name.endswith(".yaml")}
    texts["values.yaml"] = (CHART / "values.yaml").read_text()
    found = [
        f"{name}:{problem}"
        for name, text in texts.items()
        for problem in linter.run(text.strip() + "\n", rules)
        if problem.rule not in {"trailing-spaces", "empty-lines", "indentation"}
    ]
    assert found == []


def test_every_container_is_confined(manifests: Manifests) -> None:
    spec = pod(manifests)
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for container in spec["containers"]:
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["runAsNonRoot"] is True
        assert confined["runAsUser"] >= 10_000
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert confined["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]
    volumes = [key for volume in spec["volumes"] for key in volume if key != "name"]
    assert set(volumes) <= {"emptyDir", "configMap", "secret"}


def test_a_worker_reaches_the_proxy_and_nothing_else(manifests: Manifests) -> None:
    workers = of_kind(manifests, "NetworkPolicy", "-workers")["spec"]
    assert sorted(workers["policyTypes"]) == ["Egress", "Ingress"]
    assert workers["ingress"] == []
    (way,) = workers["egress"]
    assert [list(peer) for peer in way["to"]] == [["podSelector"]]
    chosen = way["to"][0]["podSelector"]["matchLabels"]
    labels = of_kind(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert chosen.items() <= labels.items()
    assert not workers["podSelector"]["matchLabels"].items() <= labels.items()
    ports = {port["port"] for port in way["ports"]}
    assert 53 not in ports and 8080 in ports
    assert {port["protocol"] for port in way["ports"]} == {"TCP"}


def test_the_proxy_takes_workers_alone_and_never_reaches_a_metadata_service(
    manifests: Manifests,
) -> None:
    own = next(
        one["spec"]
        for one in manifests
        if one["kind"] == "NetworkPolicy" and not one["metadata"]["name"].endswith("-workers")
    )
    workers = of_kind(manifests, "NetworkPolicy", "-workers")["spec"]["podSelector"]
    first, *others = own["ingress"]
    assert first["from"] == [{"podSelector": workers}]
    assert 9090 not in {port["port"] for port in first["ports"]}
    assert all({port["port"] for port in one["ports"]} == {9090} for one in others)
    blocks = [peer["ipBlock"] for way in own["egress"] for peer in way["to"] if "ipBlock" in peer]
    assert {block["cidr"] for block in blocks} == {"0.0.0.0/0", "::/0"}
    denied = {one for block in blocks for one in block["except"]}
    assert {"169.254.0.0/16", "fd00:ec2::254/128"} <= denied


def test_secrets_are_referred_to_and_lie_where_the_programs_look() -> None:
    rendered = Chart.load(CHART).render(MOST, name="sample", namespace="agents")
    assert "kind: Secret" not in "".join(rendered.values())
    (spec,) = YAML(typ="safe").load_all(rendered["palyra/templates/statefulset.yaml"])
    spec = spec["spec"]["template"]["spec"]
    for container, name in zip(spec["containers"], (OPERATOR_TOKEN, VAULT_KEY), strict=True):
        environment = {one["name"]: one["value"] for one in container["env"]}
        (place,) = [one for one in container["volumeMounts"] if one["mountPath"].endswith(name)]
        assert place["mountPath"] == f"{environment['CREDENTIALS_DIRECTORY']}/{name}"
        assert (
            place["readOnly"] is True and place["subPath"]
        )  # a file, where links are not followed
    modes = {one["secret"]["defaultMode"] for one in spec["volumes"] if "secret" in one}
    assert modes == {0o440}


def test_the_flags_are_flags_that_exist(manifests: Manifests) -> None:
    fleet, proxy = (container["args"] for container in pod(manifests)["containers"])
    assert fleet_parser().parse_args(fleet).run
    assert egress_parser().parse_args(proxy).run


def test_there_is_one_pod_since_its_state_is_one_file(manifests: Manifests) -> None:
    assert of_kind(manifests, "StatefulSet")["spec"]["replicas"] == 1
    (claim,) = of_kind(manifests, "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_no_image_has_a_default_that_could_be_pulled() -> None:
    values = YAML(typ="safe").load(CHART / "values.yaml")
    for image in (values["images"]["fleet"], values["images"]["egress"]):
        assert image.startswith("registry.example/") and image.endswith("@sha256:" + "0" * 64)
