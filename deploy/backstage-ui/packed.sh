#!/bin/sh
# Packs the three packages as `npm pack` does and unpacks them into node_modules, as an installation from tarballs would.
set -eu
cd "$(dirname "$0")"
for folder in ../backstage ../backstage-catalog ../backstage-frontend; do
  name=$(node -p 'require(process.argv[1]).name' "$PWD/$folder/package.json")
  target=node_modules/$name
  rm -rf "$target" && mkdir -p "$target"
  (cd "$folder" && npm run --silent build && npm pack --silent --ignore-scripts --pack-destination "$OLDPWD/$target") >/dev/null
  tar xzf "$target"/*.tgz --strip-components=1 -C "$target"
  rm "$target"/*.tgz
done
