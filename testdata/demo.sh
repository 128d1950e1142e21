#!/bin/sh
# The main job on a throwaway cluster, as "make demo" runs it: KUBECONFIG names
# the cluster, bin/sluice is built. It deploys the sample repository, runs again
# to show that nothing changes, and prunes what a later commit removes.
set -eu

sluice=$PWD/bin/sluice
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
commit() { git -C "$work" add -A && git -C "$work" -c user.name=demo -c user.email=demo@example.org commit -q -m "$1"; }

cp -R testdata/repos/grade-api/. "$work"
git -C "$work" -c init.defaultBranch=main init -q
commit "deploy grade-api"

cd "$work"
say "1. A commit on an empty cluster: sluice run --path clusters/production"
"$sluice" run --path clusters/production

say "2. The same commit again: nothing changes"
"$sluice" run --path clusters/production

say "3. A commit that removes a manifest (the Ingress of grade-web): it is pruned"
git rm -q apps/base/grade-web/ingress.yaml
commit "grade-web needs no ingress"
"$sluice" run --path clusters/production
