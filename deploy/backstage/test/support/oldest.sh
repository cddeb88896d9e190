#!/bin/sh
# Runs the tests in a real backend again, with the oldest Backstage that is supported. Needs `npm run packed` and
# `npm run compile`, and the packages of test/backstage-oldest. Arguments are names of tests, such as page.
set -eu
cd "$(dirname "$0")/../backstage-oldest"
rm -rf .packed .build
cp -R ../../.packed ../../.build .
# Everything of Backstage must come from here, not from the newest release in a folder above.
node -e '
  const here = process.cwd() + "/node_modules/";
  const { dependencies } = require("./.packed/node_modules/backstage-plugin-kubernetes-backend-module-palette-sync/package.json");
  for (const name of ["@backstage/plugin-kubernetes-backend", ...Object.keys(dependencies)]) {
    if (!require.resolve(name, { paths: [".build/src"] }).startsWith(here)) {
      throw new Error(`${name} is not installed in ${here}`);
    }
  }'
[ $# -gt 0 ] || set -- backstage boot page
for name; do
  set -- "$@" ".build/test/e2e/$name.test.js"
  shift
done
exec node --test --test-concurrency=2 --test-timeout=1200000 --test-reporter=spec "$@"
