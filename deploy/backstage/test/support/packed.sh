#!/bin/sh
# Packs both backend packages as `npm pack` does and unpacks them under .packed/node_modules, where the tests load them.
set -eu
cd "$(dirname "$0")/../.."
rm -rf .packed
for folder in ../backstage ../backstage-catalog; do
  (cd "$folder" && npm run --silent build)
  name=$(node -p 'require(process.argv[1]).name' "$PWD/$folder/package.json")
  target=.packed/node_modules/$name
  mkdir -p "$target"
  (cd "$folder" && npm pack --silent --ignore-scripts --pack-destination "$OLDPWD/.packed") >/dev/null
  tar xzf .packed/"$name"-*.tgz --strip-components=1 -C "$target"
done
echo '{"private":true}' >.packed/package.json
