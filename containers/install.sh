#!/bin/sh
# Install harmony-app into an image: containers/install.sh SOURCE VENV
#
# SOURCE stays where it is (run.py and the models are used from there); VENV is made.
# pip takes its index from its own environment variables. TORCH_BUILD names a build of
# torch by its local tag, for example cpu or cu130; empty takes what the index gives.
set -eu
source_tree=$1
venv=$2

python3 -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --no-cache-dir"
pin=$(sed -n 's/^torch==//p' "$source_tree/constraints.txt")
$pip install --constraint "$source_tree/constraints.txt" "torch==$pin${TORCH_BUILD:++$TORCH_BUILD}"
$pip install --constraint "$source_tree/constraints.txt" --editable "$source_tree"
"$venv/bin/python" -m compileall -q "$source_tree/harmony_app"

# Any user may run it, whatever the umask of the build was.
chmod -R a+rX "$source_tree" "$venv"
"$venv/bin/harmony-app" --version
