#!/usr/bin/env bash
# Build both images for real and run them as a user would, where no container engine runs:
#
#   containers/check.sh [FOLDER]
#
# needs root, buildah, debootstrap, util-linux and 12 GB in FOLDER (a temporary one, removed
# at the end, where none is given). It takes about ten minutes on two cores.
#
#   DEBIAN_MIRROR   where debootstrap finds Debian; that of this machine's apt by default
#   PYTHON_IMAGE    a base image instead of the one that debootstrap makes
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, PIP_CERT
#                   as pip reads them; what this machine's pip is configured with by default
#   TORCH_BUILD     local tag of the build of torch; cpu by default
#   IMAGE           an image that an earlier run left in FOLDER, instead of building one
#   STORAGE_DRIVER  overlay by default; vfs works everywhere and takes more room
#
# BUILDAH_LAYERS=true keeps the layers of an earlier run in FOLDER, to try changes of the code.
#
# What is looked at: the image of the Dockerfile runs the demo with no network, a read-only
# root and input, a random uid and no HOME; %post, %test and %runscript of Singularity.def
# run in a base of their own, where nothing but the results and /tmp may change.
set -euo pipefail

source_tree=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 0 ]; then
    work=$(mkdir -p "$1" && cd "$1" && pwd)
else
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/harmony-containers.XXXXXX")
fi
image=${IMAGE:-localhost/harmony-app:check}
uid=$((20000 + RANDOM))
export TORCH_BUILD=${TORCH_BUILD-cpu}

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'containers/check.sh: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail 'run it as root'
for tool in buildah debootstrap unshare setpriv; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done

store=(buildah --root "$work/storage" --runroot "$work/storage-run"
    --storage-driver "${STORAGE_DRIVER:-overlay}")
post=
clean() {
    [ -z "$post" ] || kill -- -"$post" 2>/dev/null || true
    "${store[@]}" umount --all >/dev/null 2>&1 || true
    "${store[@]}" rm --all >/dev/null 2>&1 || true
    rm -rf "$work/singularity" "$work/storage-run"
    [ $# -eq 0 ] || rm -rf "$work"
}
if [ $# -gt 0 ]; then trap clean EXIT; else trap 'clean all' EXIT; fi

# -- Where pip looks ---------------------------------------------------------------------

# A setting of pip on this machine: of its environment, else of its files.
pip_setting() {
    python3 -m pip config list |
        sed -n "s/^\(:env:\|global\|install\)\.$1='\(.*\)'\$/\2/p" | sed 's/\\n/ /g' | tail -n 1
}
for name in index-url extra-index-url find-links cert; do
    variable=PIP_$(echo "$name" | tr 'a-z-' 'A-Z_')
    value=${!variable:-$(pip_setting "$name")}
    [ -z "$value" ] || export "$variable=$value"
done

# Build arguments, and what of this machine's files they name.
arguments=() mounts=() shown=()
for variable in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT; do
    value=${!variable:-}
    [ -n "$value" ] || continue
    arguments+=(--build-arg "$variable=$value")
    for place in $value; do
        place=${place#file://}
        [ -e "$place" ] || continue
        # The files of an index lie beside its pages.
        case $variable in *INDEX_URL) place=$(dirname "$place") ;; esac
        mounts+=(--volume "$place:$place:ro")
        shown+=("$place")
    done
done

# -- Running inside a root ------------------------------------------------------------------

# inside ROOT MODE UID ENVIRONMENT WORKDIR COMMAND...: no network, no processes but its own.
# MODE is ro or rw (of the root); ENVIRONMENT is a file of NAME=VALUE lines, and nothing else
# of this machine's environment goes in. /data is read-only, /out and /tmp are to write in.
inside() {
    local root=$1 mode=$2 user=$3 environment=$4 folder=$5
    shift 5
    local -a given=()
    mapfile -t given <"$environment"
    mkdir -p "$root/data" "$root/out"
    unshare --net --mount --pid --ipc --uts --fork --kill-child bash -euc '
        root=$1 mode=$2 user=$3 folder=$4 data=$5 out=$6 scratch=$7
        shift 7
        mount --make-rprivate /
        mount --bind "$root" "$root"
        [ "$mode" = rw ] || mount -o remount,bind,ro "$root"
        mount --bind "$data" "$root/data"
        mount -o remount,bind,ro "$root/data"
        mount --bind "$out" "$root/out"
        mount --bind "$scratch" "$root/tmp"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=755 tmpfs "$root/dev"
        for device in null zero full random urandom; do
            touch "$root/dev/$device"
            mount --bind "/dev/$device" "$root/dev/$device"
        done
        mkdir -m 1777 "$root/dev/shm"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        cd "$root"
        exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid -- \
            chroot --userspec="$user:$user" --groups= "$root" \
            /usr/bin/env -i --chdir="$folder" "$@"
    ' inside "$root" "$mode" "$user" "$folder" "$work/run/data" "$work/run/out" \
        "$work/run/tmp" "${given[@]}" "$@"
}

# A dataset, an empty folder for results, and a scratch, of the user who runs it.
fresh_folders() {
    rm -rf "$work/run"
    mkdir -p "$work/run/data" "$work/run/out" "$work/run/tmp"
    chown "$1:$1" "$work/run/out"
    chmod 1777 "$work/run/tmp"
    [ ! -d "$work/bids" ] || cp -a "$work/bids/." "$work/run/data/"
}

check_results() {
    local anat=$work/run/out/results/sub-01/ses-siteD/anat stem=sub-01_ses-siteD
    local space=space-MNI152NLin2009aSym_res-1
    for file in "$anat/${stem}_desc-harmonized_T1w.nii.gz" \
        "$anat/${stem}_${space}_desc-harmonized_T1w.nii.gz" \
        "$anat/${stem}_desc-harmonized_T1w.json" "$anat/${stem}_desc-harmonized_qc.tsv" \
        "$work/run/out/results/dataset_description.json"; do
        [ -s "$file" ] || fail "the run left no $file"
        [ "$(stat -c %u "$file")" = "$1" ] || fail "$file is not of uid $1"
    done
    grep -q "\"Type\": \"$2\"" "$work/run/out/results/dataset_description.json" ||
        fail "dataset_description.json does not say that it ran in $2"
    (cd "$work/bids" && find . -type f -exec sha256sum {} + | sort) |
        cmp - "$work/bids.sha256" || fail 'the input was changed'
    printf 'results: %s files, %s\n' "$(find "$work/run/out/results" -type f | wc -l)" \
        "$(grep -h '' "$anat/${stem}_desc-harmonized_qc.tsv" | wc -l) rows of quality"
}

# -- A base with Python ---------------------------------------------------------------------

if [ -z "${PYTHON_IMAGE:-}" ]; then
    PYTHON_IMAGE=localhost/python-base:check
    if [ ! -d "$work/base" ]; then
        mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' \
            'Created-By: Packages' 'Codename: bookworm' | head -n 1)}
        [ -n "$mirror" ] || fail 'apt knows no mirror of Debian bookworm; give DEBIAN_MIRROR'
        say 'debootstrap: Debian bookworm, Python 3.11'
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
            bookworm "$work/base.part" "$mirror" >"$work/debootstrap.log" 2>&1 ||
            fail "debootstrap failed, see $work/debootstrap.log"
        mv "$work/base.part" "$work/base"
    fi
    if ! "${store[@]}" inspect --type image "$PYTHON_IMAGE" >/dev/null 2>&1; then
        mkdir -p "$work/base-image"
        tar -C "$work/base" --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* \
            -cf "$work/base-image/base.tar" .
        printf 'FROM scratch\nADD base.tar /\nENV PATH=%s\n' \
            /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin >"$work/base-image/Dockerfile"
        "${store[@]}" bud --isolation chroot --quiet -t "$PYTHON_IMAGE" "$work/base-image" >/dev/null
        rm -r "$work/base-image"
    fi
fi

# -- The Dockerfile -------------------------------------------------------------------------

say "buildah: the Dockerfile, torch build '$TORCH_BUILD'"
version=$(cat "$source_tree/version")
if [ -z "${IMAGE:-}" ]; then
    "${store[@]}" bud --isolation chroot "${mounts[@]}" "${arguments[@]}" \
        --build-arg PYTHON_IMAGE="$PYTHON_IMAGE" --build-arg TORCH_BUILD="$TORCH_BUILD" \
        --build-arg VERSION="$version" \
        --build-arg REVISION="$(git -C "$source_tree" rev-parse HEAD 2>/dev/null || true)" \
        -t "$image" "$source_tree" >"$work/build.log" 2>&1 ||
        { tail -n 40 "$work/build.log" >&2 && fail "the build failed, see $work/build.log"; }
fi
inspect() { "${store[@]}" inspect --type image --format "$1" "$image"; }
for label in title description licenses version revision; do
    printf '%-12s %s\n' "$label" \
        "$(inspect "{{index .OCIv1.Config.Labels \"org.opencontainers.image.$label\"}}")"
done
[ "$(inspect '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}}')" = "$version" ] ||
    fail "the label of the image is not version $version"
[ "$(inspect '{{.OCIv1.Config.User}}')" = 10001:10001 ] || fail 'the image runs as root'
inspect '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' | sed '/^$/d' >"$work/environment"
inspect '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}' | sed '/^$/d' >"$work/entrypoint"
folder=$(inspect '{{.OCIv1.Config.WorkingDir}}')
mapfile -t entrypoint <"$work/entrypoint"
grep -q '^HOME=' "$work/environment" && fail 'the image sets HOME'

# -- Singularity.def ------------------------------------------------------------------------

say 'Singularity.def: %post in a root of its own, beside what follows'
recipe=$source_tree/Singularity.def
section() { awk -v wanted="%$1" '/^%/ { found = ($1 == wanted); next } found' "$recipe"; }
container=$("${store[@]}" from "$PYTHON_IMAGE")
base=$("${store[@]}" mount "$container")
rm -rf "$work/singularity"
cp -a "$base" "$work/singularity"
"${store[@]}" umount "$container" >/dev/null
"${store[@]}" rm "$container" >/dev/null
recipe_root=$work/singularity
section files | while read -r from to; do
    [ -n "$from" ] || continue
    mkdir -p "$(dirname "$recipe_root$to")"
    cp -R "$source_tree/$from" "$recipe_root$to"
done
section environment >"$recipe_root/environment.sh"
for name in post test runscript; do
    { echo 'set -e' && section "$name"; } >"$recipe_root/$name.sh"
done
# As Singularity does: the environment of the build, and the network, as they are here.
setsid unshare --mount bash -euc '
    root=$1
    shift
    mount --make-rprivate /
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    for place in "$@"; do
        if [ -d "$place" ]; then mkdir -p "$root$place"; else
            mkdir -p "$(dirname "$root$place")" && touch "$root$place"; fi
        mount --bind "$place" "$root$place"
    done
    APPTAINER_LABELS=/labels TMPDIR=/tmp chroot "$root" /bin/sh /post.sh
' post "$recipe_root" "${shown[@]}" >"$work/post.log" 2>&1 &
post=$!

# -- The image of the Dockerfile ------------------------------------------------------------

container=$("${store[@]}" from "$image")
root=$("${store[@]}" mount "$container")
printf 'size         %s\n' "$(du -shx "$root" | cut -f 1)"
du -shx "$root/opt/venv" "$root/opt/harmony-app" | sed "s#$root##"

say 'what is in it'
for name in .git tests docs benchmarks .venv; do
    [ ! -e "$root/opt/harmony-app/$name" ] || fail "the image holds $name"
done
[ ! -e "$root/opt/source" ] || fail 'the image holds the source that it was built from'
inside_image() { inside "$root" ro "$uid" "$work/environment" "$folder" "$@"; }
fresh_folders "$uid"
inside_image /opt/venv/bin/python - <"$source_tree/containers/look.py"

say "--version and --help, uid $uid, no HOME, no network, read-only root"
inside_image "${entrypoint[@]}" --version
inside_image "${entrypoint[@]}" --help >"$work/help"
grep -q -- --participant-label "$work/help" || fail '--help tells no options'

say 'the demo'
inside_image harmony-phantom /out/bids --subjects 1 --sites siteD --contrasts T1w --resolution 3 \
    --truth own
rm -rf "$work/bids"
cp -a "$work/run/out/bids" "$work/bids"
(cd "$work/bids" && find . -type f -exec sha256sum {} + | sort) >"$work/bids.sha256"
fresh_folders "$uid"
inside_image "${entrypoint[@]}" /data /out/results participant
check_results "$uid" docker
inside_image "${entrypoint[@]}" /data /out/results group
rm -rf "$work/results"
cp -a "$work/run/out/results" "$work/results"
(cd "$work/run/tmp" && find . -mindepth 1 -maxdepth 1) | sed 's#^#left in /tmp: #'
"${store[@]}" umount "$container" >/dev/null
"${store[@]}" rm "$container" >/dev/null

# -- What %post made -------------------------------------------------------------------------

wait "$post" || { tail -n 40 "$work/post.log" >&2 && fail "%post failed, see $work/post.log"; }
post=
root=$recipe_root
say 'what %post made'
cat "$root/labels"
grep -qx "org.opencontainers.image.version $version" "$root/labels" || fail 'no label of the version'
[ ! -e "$root/opt/source" ] || fail '%post leaves the source behind'
du -shx "$root/opt/venv" "$root/opt/harmony-app" | sed "s#$root##"

# Root and a root file system that could be written: so that all that is written is seen.
fresh_folders 0
touch "$work/before"
printf 'PATH=%s\n' /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin >"$work/bare"
inside_recipe() {
    local script=$1
    shift
    inside "$root" rw 0 "$work/bare" / /bin/sh -c \
        '. /environment.sh; script=$1; shift; . "$script"' run "/$script.sh" "$@"
}
say '%test'
inside_recipe test
say '%runscript, with a root that could be written'
# Results of the same input and settings are left as they are, whichever image made them.
cp -a "$work/results" "$work/run/out/results"
chown -R 0:0 "$work/run/out/results"
inside_recipe runscript /data /out/results participant | tee "$work/again"
grep -q 'finished before' "$work/again" || fail 'the results of the other image do not count'
inside_recipe runscript /data /out/results group
check_results 0 singularity
written=$(find "$root" -xdev -newer "$work/before" \
    ! -path "$root" ! -path "$root/dev*" ! -path "$root/data*" ! -path "$root/out*" ! -path "$root/tmp*")
[ -z "$written" ] || fail "the run wrote outside of its results and /tmp: $written"
echo 'nothing but the results and /tmp was written'

say 'both images are good'
