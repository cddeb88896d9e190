#!/bin/sh
# Pin the images that deploy/Dockerfile and docker-compose.yml name to the digests that their tags have now. Run it again
# to renew the digests, for example once a month. It needs docker with buildx and the registry; it builds nothing.
set -eu
cd "$(dirname "$0")/.."
files="deploy/Dockerfile docker-compose.yml"

# Only images of others: name:tag, with or without a digest of before.
images=$(sed -nE 's/^(ARG BASE=|[[:space:]]*image: )([^[:space:]@]+:[^[:space:]@]+)(@sha256:[0-9a-f]+)?$/\2/p' $files | sort -u)
for image in $images; do
    digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
    case $digest in
    sha256:*) ;;
    *)
        echo "pin-images: the registry names no digest for $image; nothing of it was changed" >&2
        exit 1
        ;;
    esac
    for file in $files; do
        sed -E "s,($image)(@sha256:[0-9a-f]+)?\$,\\1@$digest," "$file" >"$file.pinned"
        cat "$file.pinned" >"$file"
        rm "$file.pinned"
    done
    echo "$image@$digest"
done
