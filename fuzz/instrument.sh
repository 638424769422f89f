#!/bin/sh
# Stands between cargo and rustc (RUSTC_WRAPPER): the gateway and the fuzz targets tell libFuzzer
# which of their code runs; all other crates are built as ever, so that what is built already is
# used again.
case " $* " in
*" --crate-name gateway "* | *"--crate-name gateway_datapath "* | *"--crate-name gateway_fuzz "*)
    exec "$@" --cfg fuzzing -C codegen-units=1 -C passes=sancov-module \
        -C llvm-args=-sanitizer-coverage-level=4 \
        -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
        -C llvm-args=-sanitizer-coverage-pc-table \
        -C llvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$@"
