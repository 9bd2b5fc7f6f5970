#!/usr/bin/env bash
# The words of this machine's documentation, by a Python handler that stays up.
#
#   examples/words/run.sh            # README and copyright files in /usr/share/doc
#   examples/words/run.sh FOLDER     # of all files there
#
# Needs `cargo build --release`, or TRADEWIND=path of the program; Python 3.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
tradewind=${TRADEWIND:-${CARGO_TARGET_DIR:-$root/target}/release/tradewind}
files_max=250
size_max=32k
seconds_max=120

fail() {
    echo "words: $1" >&2
    exit 1
}

header() { printf '\n== %s\n' "$1"; }

if (($# > 1)); then
    echo "usage: examples/words/run.sh [FOLDER]" >&2
    exit 2
fi
[[ -x $tradewind ]] || fail "$tradewind is missing: cargo build --release, or set TRADEWIND"
command -v python3 >/dev/null || fail "python3 is missing (Debian: apt-get install python3)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Nothing is left beside the sources.
export PYTHONDONTWRITEBYTECODE=1

# Which files, sorted, each name with a NUL behind it.
files() { # folder, tests for find
    find "$1" -type f -readable -size "-$size_max" "${@:2}" -print0 2>/dev/null |
        LC_ALL=C sort -z | sed -z -n "1,${files_max}p"
}
count() { tr -dc '\0' <"$work/names" | wc -c; }

if (($# == 1)); then
    where=$1
    files "$where" >"$work/names" || fail "$where cannot be read"
else
    where=/usr/share/doc
    files "$where" '(' -name copyright -o -name 'README*' ')' >"$work/names" || true
    if (($(count) < 20)); then
        where=$root/crates
        files "$where" >"$work/names"
    fi
    # There may be nothing but text: here is a program.
    printf '%s\0' "$BASH" >>"$work/names"
fi

header "the job: the words of $(count) files in $where, by $(nproc) handlers"
cat <<'COMMAND'
tradewind run -0 --input names --output words.jsonl --ordered \
    --pipe json -- python3 examples/words/handler.py

COMMAND
code=0
timeout --foreground "$seconds_max" "$tradewind" run -0 --input "$work/names" \
    --output "$work/words.jsonl" --ordered --pipe json -- python3 "$here/handler.py" || code=$?
((code == 0)) || fail "the job ended with exit code $code"

header "all of its records together"
python3 "$here/total.py" "$work/words.jsonl" | tee "$work/found"

header "the same by plain Python"
python3 "$here/total.py" --without-tradewind "$work/names" >"$work/expected"
diff "$work/expected" "$work/found" || fail "they differ: < is plain Python, > are the records"
echo "the same, to the last word"
