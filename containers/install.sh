#!/bin/sh
# Install harmony-app into an image, in two steps that become two layers:
#
#   containers/install.sh dependencies SOURCE VENV APP   changes with constraints.txt
#   containers/install.sh app SOURCE VENV APP            changes with the code
#
# VENV gets every package that is needed, none of them newer or older than constraints.txt
# says; APP gets harmony_app with its models, and run.py. SOURCE is only read, and neither
# pip nor what builds packages stays behind.
#
# pip takes its index from its own environment variables. TORCH_BUILD names a build of
# torch by its local tag, for example cpu or cu130; empty takes what the index gives.
set -eu
step=$1
source_tree=$2
venv=$3
app=$4

# pip lives beside the image's packages, and only as long as this script.
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"

install() {
    "$tools/venv/bin/python" -m pip --disable-pip-version-check --no-cache-dir \
        --python "$venv/bin/python" install --no-compile "$@"
}

# Nothing can be compiled when it runs, and dates of files differ between copies of an
# image: the compiled files are taken as they are.
compile() {
    "$venv/bin/python" -m compileall -q -f --invalidation-mode unchecked-hash "$@"
}

case $step in
dependencies)
    python3 -m venv --without-pip "$venv"
    pin=$(sed -n 's/^torch==//p' "$source_tree/constraints.txt")
    "$venv/bin/python" - "$source_tree/pyproject.toml" >"$tools/requirements.txt" <<'END'
import sys
import tomllib

with open(sys.argv[1], 'rb') as file:
    project = tomllib.load(file)['project']
needed = project['dependencies'] + project['optional-dependencies']['training']
sys.stdout.write('\n'.join(needed) + '\n')
END
    install --constraint "$source_tree/constraints.txt" \
        "torch==$pin${TORCH_BUILD:++$TORCH_BUILD}" --requirement "$tools/requirements.txt"
    # run.py finds harmony_app beside it; torchrun and python -m find it by this.
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$app" >"$site/harmony-app.pth"
    # What packages hold for a newer Python does not compile, and is not imported.
    compile "$site" || true
    chmod -R a+rX "$venv"
    ;;
app)
    # A copy, because a build leaves files where it runs.
    mkdir "$tools/source"
    for name in harmony_app pyproject.toml version README.md LICENSE; do
        cp -R "$source_tree/$name" "$tools/source/$name"
    done
    install --no-deps --target "$app" "$tools/source"
    for name in run.py version README.md LICENSE CITATION.cff constraints.txt; do
        cp "$source_tree/$name" "$app/$name"
    done
    compile "$app"
    # Any user may run it, whatever the umask of the build was.
    chmod -R a+rX "$app"
    "$app/bin/harmony-app" --version
    ;;
*)
    echo "containers/install.sh: $step is no step; give dependencies or app" >&2
    exit 2
    ;;
esac
