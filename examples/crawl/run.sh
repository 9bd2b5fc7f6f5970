#!/usr/bin/env bash
# Crawls a site and makes an index of its words: fetch, parse and index are stages of a pipeline.
#
#   examples/crawl/run.sh [WORD]     # and says which pages have this word
#
# Needs `cargo build --release`, or TRADEWIND=path of the program; curl; Python 3. The site is made
# of this repository's documents and served on loopback, by Python, on a port that is free.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tradewind=$(realpath -m "${TRADEWIND:-${CARGO_TARGET_DIR:-$root/target}/release/tradewind}")
word=${1:-ventilator}
seconds_max=120

fail() {
    echo "crawl: $1" >&2
    exit 1
}

header() { printf '\n== %s\n' "$1"; }

if (($# > 1)); then
    echo "usage: examples/crawl/run.sh [WORD]" >&2
    exit 2
fi
[[ -x $tradewind ]] || fail "$tradewind is missing: cargo build --release, or set TRADEWIND"
for command in curl python3; do
    command -v "$command" >/dev/null ||
        fail "$command is missing (Debian: apt-get install $command)"
done

work=$(mktemp -d)
server=
finish() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
# Nothing is left beside the sources.
export PYTHONDONTWRITEBYTECODE=1
# The server is here: whatever proxy there is has no part in this.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

# The pipeline's commands are those of this folder.
cd "$here"
mkdir "$work/site"
python3 make_site.py "$work/site" "$root"/{README,ARCHITECTURE,CONTRIBUTING,CHANGELOG}.md

: >"$work/server.out"
# Port 0 is whichever is free; the server says which.
python3 -u -m http.server --bind 127.0.0.1 --directory "$work/site" 0 \
    >"$work/server.out" 2>"$work/server.log" &
server=$!
port=
for ((i = 0; i < 200; i++)); do
    port=$(sed -nE 's/^Serving HTTP on .* port ([0-9]+) .*$/\1/p' "$work/server.out")
    [[ -z $port ]] || break
    kill -0 "$server" 2>/dev/null ||
        fail "the server does not start: $(tail -n 1 "$work/server.log")"
    sleep 0.1
done
[[ -n $port ]] || fail "the server does not say its port"

header "the job: a crawl of http://127.0.0.1:$port/ in three stages, crawl.toml"
timeout --foreground "$seconds_max" \
    python3 crawl.py "$tradewind" "http://127.0.0.1:$port/" "$work/index.json" ||
    fail "the crawl ended with exit code $?"

header "pages with \"$word\""
python3 - "$work/index.json" "$word" <<'FIND'
import json, sys
index = json.load(open(sys.argv[1]))
pages = index.get(sys.argv[2].lower(), [])
print(*pages[:10], sep="\n")
if len(pages) > 10:
    print(f"... and {len(pages) - 10} more")
FIND

header "the same from the files, without server and stages"
python3 expected.py "$work/site" "$work/expected.json"
diff "$work/expected.json" "$work/index.json" >"$work/diff" || {
    head -n 20 "$work/diff"
    fail "they differ: < is what the files say, > what the crawl says"
}
echo "the index is the same"
