#!/bin/sh
# Runs the image's service: no argument serves, `migrate` brings its database up to date, `migrate-and-serve` does
# both, `health` asks it how it is.
set -eu
module="tunix_rt_$(printf %s "$TUNIX_RT_SERVICE" | tr - _)"
case "${1:-}" in
  health)
    exec python -m tunix_rt_kit.serving.health ;;
  migrate-and-serve)
    shift
    python -m "$module" migrate "$@"
    exec python -m "$module" serve "$@" ;;
  *)
    exec python -m "$module" "$@" ;;
esac
