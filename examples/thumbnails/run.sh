#!/usr/bin/env bash
# Thumbnails of a folder of pictures, by ImageMagick, on all cores.
#
#   examples/thumbnails/run.sh                      # of pictures that it makes, and checks them
#   examples/thumbnails/run.sh PICTURES THUMBNAILS  # of yours
#
# Needs `cargo build --release`, or TRADEWIND=path of the program; ImageMagick.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tradewind=${TRADEWIND:-${CARGO_TARGET_DIR:-$root/target}/release/tradewind}
size=128
seconds_max=120

fail() {
    echo "thumbnails: $1" >&2
    exit 1
}

header() { printf '\n== %s\n' "$1"; }

if (($# != 0 && $# != 2)); then
    echo "usage: examples/thumbnails/run.sh [PICTURES THUMBNAILS]" >&2
    exit 2
fi
[[ -x $tradewind ]] || fail "$tradewind is missing: cargo build --release, or set TRADEWIND"
for command in convert identify; do
    command -v "$command" >/dev/null ||
        fail "$command is missing: install ImageMagick (Debian: apt-get install imagemagick)"
done

# ImageMagick would use all cores for one picture, where they are to be used for as many pictures.
export MAGICK_THREAD_LIMIT=1

# Gives the exit code of Tradewind: 1 where there is a picture that ImageMagick cannot read.
thumbnails() { # pictures, thumbnails
    local records=$2/thumbnails.jsonl
    find "$1" -maxdepth 1 -type f -print0 | LC_ALL=C sort -z |
        timeout --foreground "$seconds_max" "$tradewind" run -0 --output "$records" --overwrite \
            -- convert {} -auto-orient -thumbnail "${size}x$size>" "$2/{/.}.png"
}

if (($# == 2)); then
    mkdir -p "$2"
    thumbnails "$1" "$2"
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pictures=$work/pictures thumbs=$work/thumbs
mkdir "$pictures" "$thumbs"

# What ImageMagick draws out of nothing, each in all shapes and in one format.
"$tradewind" run --quiet -- convert -size "{1}" "{2}" "$pictures/{#}.{3}" \
    ::: 640x480 300x900 1000x250 \
    ::: gradient:navy-gold plasma:red-blue pattern:checkerboard pattern:hexagons \
    :::+ jpg png png jpg
convert rose: "$pictures/small 'rose'.png" # 70x46: stays as it is
identify -format '%w %h %f\n' "$pictures"/* >"$work/shapes"
echo "this is no picture" >"$pictures/broken.jpg"
good=$(wc -l <"$work/shapes")

header "the job: thumbnails of $((good + 1)) files, $(nproc) at once"
cat <<COMMAND
find pictures -type f -print0 |
    tradewind run -0 --output thumbs/thumbnails.jsonl \\
        -- convert {} -auto-orient -thumbnail '${size}x$size>' thumbs/{/.}.png

COMMAND
code=0
thumbnails "$pictures" "$thumbs" || code=$?
((code == 1)) || fail "exit code $code where one picture is broken and the rest are not"

header "the record of the broken picture"
records=$thumbs/thumbnails.jsonl
grep '"status":"failed"' "$records" || fail "there is none"

header "what is in the folder now"
# Each thumbnail must have the shape of its picture, to the nearest pixel.
declare -A found
while read -r width height name; do
    found[$name]="$width x $height"
done < <(identify -format '%w %h %f\n' "$thumbs"/*.png)
checked=0
while read -r width height name; do
    longer=$((width > height ? width : height))
    scaled=$((longer > size ? size : longer))
    w=$(((2 * width * scaled + longer) / (2 * longer)))
    h=$(((2 * height * scaled + longer) / (2 * longer)))
    is=${found[${name%.*}.png]:-missing}
    [[ $is == "$w x $h" ]] || fail "$name, $width x $height: its thumbnail is $is, not $w x $h"
    ((checked % 3 != 0)) || echo "$name: $width x $height, its thumbnail $is"
    checked=$((checked + 1))
done <"$work/shapes"
((${#found[@]} == good)) || fail "${#found[@]} thumbnails of $good pictures"
ok=$(grep -c '"status":"ok"' "$records")
total=$(wc -l <"$records")
((ok == good && total == good + 1)) || fail "$total records, $ok of them ok"
echo "$checked thumbnails, each of the right shape; 1 picture that failed, with its reason"
