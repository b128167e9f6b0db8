#!/bin/sh
# Runs the image's service: no argument serves, `migrate` brings its database up to date, `health` asks it how it is.
set -eu
module="tunix_rt_$(printf %s "$TUNIX_RT_SERVICE" | tr - _)"
if [ "${1:-}" = health ]; then
  exec python -m tunix_rt_kit.serving.health
fi
exec python -m "$module" "$@"
