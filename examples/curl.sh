#!/bin/sh
# One song with curl: submit, wait, download.
#
#   export ANTIPHON_BASE_URL=http://127.0.0.1:8000 ANTIPHON_API_KEY=aph_live_...
#   sh examples/curl.sh "slow jazz waltz, piano trio" waltz.mp3
#
# Needs curl 7.76 and python3, which only reads and writes JSON here.
set -eu

prompt=${1:-"slow jazz waltz, piano trio"}
output=${2:-song.mp3}
job=$(mktemp)
trap 'rm -f "$job"' EXIT

# Prints one field of the job: field result data 0 url
field() {
    python3 -c 'import json, sys
value = json.load(open(sys.argv[1]))
for name in sys.argv[2:]:
    value = value[int(name)] if isinstance(value, list) else value[name]
print(value)' "$job" "$@"
}

# Repeats what may be repeated: lost connections, 429 and 503, as long as Retry-After says.
api() {
    path=$1
    shift
    curl -sS --fail-with-body --retry 5 --retry-connrefused --max-time 90 --output "$job" \
        -H "authorization: Bearer $ANTIPHON_API_KEY" "$ANTIPHON_BASE_URL$path" "$@" || {
        cat "$job" >&2
        exit 1
    }
}

body=$(python3 -c 'import json, sys
print(json.dumps({"model": "sandbox", "prompt": sys.argv[1], "audio_duration": 10, "format": "mp3"}))' "$prompt")
key=$(python3 -c 'import uuid; print(uuid.uuid4())')

# The key makes the repetition safe: the same key and body are one job, however often they are sent.
# `Prefer: wait` answers with the finished job if it is finished in time, else with the job as it stands.
api /v1/audio/generations -H "content-type: application/json" -H "idempotency-key: $key" -H "prefer: wait=30" \
    -d "$body"

while status=$(field status) && [ "$status" != completed ] && [ "$status" != failed ]; do
    sleep 1
    api "$(field poll_url)"
done

if [ "$status" = failed ]; then
    echo "no music, nothing charged: $(field error message)" >&2
    exit 1
fi
curl -sS --fail --retry 5 --output "$output" "$(field result data 0 url)"
echo "$output: $(field cost billed_seconds) s for $(field cost usd) USD"
