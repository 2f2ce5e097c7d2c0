"""Writes palyra_fleet/wire/protobuf/ from proto/ (`make proto`). Generated code is never edited.

`protoc` names Python modules after proto files, which would put a package called `palyra` beside
ours. So the modules are written flat into our package, and the names in them follow: the imports,
and the module that messages say they come from. `grpc` is taken from where it is loaded as we need
it. Nothing else is changed. With a folder as argument
it writes there instead, which is how a test sees whether the committed code is what this makes.
"""

import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
PACKAGE = "palyra_fleet.wire.protobuf"
PACKAGE_DOCSTRING = (
    '"""Messages and stubs of NodeService, made by `make proto`; not to be edited."""\n'
)
SERVICE_LESS = "common_pb2_grpc.py"

_IMPORT = re.compile(r"^from palyra\.\w+\.v1 import ", re.MULTILINE)
_GRPC = re.compile(r"^import grpc$", re.MULTILINE)
_MODULE = re.compile(r"'palyra\.\w+\.v1\.(\w+_pb2)'")


def generate(into: Path) -> None:
    """Write every generated module into the folder `into`."""
    files = sorted(str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [f"--{kind}_out={scratch}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"-I{SOURCES}", *outputs, *files]) != 0:
            raise SystemExit("protoc refused the files in proto/; its reasons stand above")
        for made in sorted(Path(scratch).rglob("*_pb2*")):
            if made.name != SERVICE_LESS:
                (into / made.name).write_text(_ours(made.read_text("utf-8")), "utf-8")
    (into / "__init__.py").write_text(PACKAGE_DOCSTRING, "utf-8")


def _ours(text: str) -> str:
    text = _GRPC.sub("from palyra_fleet.wire.grpc_runtime import grpc", text)
    text = _IMPORT.sub(f"from {PACKAGE} import ", text)
    return _MODULE.sub(rf"'{PACKAGE}.\1'", text)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.joinpath(*PACKAGE.split(".")))
