#!/bin/sh
# The Python that cargo-zigbuild calls `-m ziglang` with (CARGO_ZIGBUILD_PYTHON_PATH): as zig's compiler and linker.
#
# rustc requests the profiler's runtime by `-u SYMBOL`, which zig 0.15 accepts only as one word.
#
# ring is built without the profile: its constant-time code must be compiled as its authors wrote it, and a training run
# without TLS would mark its handshakes as cold. The output of its build is under `build/ring-HASH`.
ring=
for word in "$@"; do
    case $word in */build/ring-*) ring=yes ;; esac
done
left=$#
while [ "$left" -gt 0 ]; do
    word=$1
    shift
    left=$((left - 1))
    case $word in
    -u)
        if [ "$left" -gt 0 ]; then
            word=-u$1
            shift
            left=$((left - 1))
        fi
        ;;
    -fprofile-generate | -fprofile-use=*)
        if [ -n "$ring" ]; then
            continue
        fi
        ;;
    esac
    set -- "$@" "$word"
done
exec python3 "$@"
