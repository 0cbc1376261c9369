#!/bin/sh
# The Python that cargo-zigbuild calls `-m ziglang` with (CARGO_ZIGBUILD_PYTHON_PATH).
# rustc asks for the profiler's runtime by `-u SYMBOL`, which zig 0.15 takes in one word only.
left=$#
while [ "$left" -gt 0 ]; do
    word=$1
    shift
    left=$((left - 1))
    if [ "$word" = -u ] && [ "$left" -gt 0 ]; then
        word=-u$1
        shift
        left=$((left - 1))
    fi
    set -- "$@" "$word"
done
exec python3 "$@"
