#!/bin/sh
# One song for each line of a file, with the client that comes with the gateway.
#
#   export ANTIPHON_BASE_URL=http://127.0.0.1:8000 ANTIPHON_API_KEY=aph_live_...
#   sh examples/batch.sh captions.txt songs
#
# Run it again after an interruption: songs that are there are not made twice. Needs `antiphon` in the PATH.
set -eu

captions=${1:?"usage: batch.sh FILE_OF_CAPTIONS FOLDER"}
folder=${2:?"usage: batch.sh FILE_OF_CAPTIONS FOLDER"}
mkdir -p "$folder"

number=0
failed=0
while IFS= read -r caption || [ -n "$caption" ]; do
    [ -n "$caption" ] || continue
    number=$((number + 1))
    song=$folder/$(printf '%03d' "$number").mp3
    [ ! -e "$song" ] || continue
    while :; do
        status=0
        antiphon generate --quiet --caption "$caption" --duration 10 --output "$song" </dev/null || status=$?
        [ "$status" = 5 ] || break # a limit of the key: later
        sleep 5
    done
    case $status in
    0) ;;
    2 | 3 | 4) exit "$status" ;; # wrong usage, key or credit: the next line would fare no better
    *)
        echo "line $number: no song (status $status)" >&2
        failed=1
        ;;
    esac
done <"$captions"
exit "$failed"
