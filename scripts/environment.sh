# Sourced by the other scripts: a virtual environment that is made once and made anew when it is out of date.

# environment FOLDER PIP_ARGUMENTS...
#
# Leaves FOLDER holding an environment in which `pip install -c constraints.txt PIP_ARGUMENTS...` was run in
# the current folder, the repository root. Does nothing where a stamp says that this has been done, for the same
# interpreter, place, requirements and arguments. PYTHON names the interpreter (default: python3).
environment() {
    local folder=$1 python=${PYTHON:-python3} wanted
    shift
    if ! command -v "$python" >/dev/null; then
        echo "error: no interpreter '$python'; set PYTHON to a Python of version 3.10 or later" >&2
        return 1
    fi
    wanted=$("$python" - "$PWD" "$@" <<'PYTHON'
import hashlib
import sys

if sys.version_info < (3, 10):
    sys.exit(f"error: bnfold needs Python 3.10 or later, and {sys.executable} is {sys.version.split()[0]}; set PYTHON")
digest = hashlib.sha256(repr((sys.version, sys.base_prefix, sys.argv[1:])).encode())
for name in ("pyproject.toml", "constraints.txt"):
    with open(name, "rb") as file:
        digest.update(file.read())
print(digest.hexdigest())
PYTHON
    )
    if [[ -f $folder/stamp && $(<"$folder/stamp") == "$wanted" ]]; then
        return
    fi
    echo "Installing into $folder (once)" >&2
    "$python" -m venv --clear "$folder"
    # 25.1 is the first pip that reads dependency groups.
    "$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --upgrade "pip>=25.1"
    "$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check -c constraints.txt "$@"
    echo "$wanted" >"$folder/stamp"
}

test_environment() {
    environment .venv-test -e ".[cpu,torch,ir,simplify,report,images]" --group dev --group train
}
