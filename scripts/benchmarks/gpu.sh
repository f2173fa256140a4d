#!/usr/bin/env bash
# Speed against PyTorch on one GPU, in the order in which figures are wanted, within a budget of minutes.
#
#   scripts/benchmarks/gpu.sh runs/gpu_benchmark [MINUTES]      default: 25
#
# JSON lines and a table a part go to the folder; the same command goes on where a budget cut it off, and leaves finished
# parts alone. Needs neither data sets nor what reads them: images are noise, or those of the file that IMAGES names
# (.npy, uint8 [N, H, W, 1 or 3]: 26,000 of FER2013 are 60 MB). PyTorch is left out where it is not there.
# Set FER_JAX_ENV=active to use the environment that is active.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: scripts/benchmarks/gpu.sh FOLDER [MINUTES]" >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
prepare_environment
cd "$repo" || exit 1
out=$1 until=$((SECONDS + 60 * ${2:-25}))
mkdir -p "$out"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/programs}

# part NAME ARGUMENTS...: one table of scripts/benchmarks/run.py, once; what a budget cuts off is measured anew.
part() {
  local name=$1 left=$((until - SECONDS))
  shift
  [ ! -f "$out/$name.md" ] || return 0
  [ $left -gt 30 ] || { echo "$name: no time left"; return 0; }
  rm -f "$out/$name.jsonl"
  if timeout --kill-after=20 "$left" "$python" scripts/benchmarks/run.py "$@" --name "$name" --out "$out/$name.jsonl" \
    >"$out/$name.tmp" 2>>"$out/$name.log"; then
    mv "$out/$name.tmp" "$out/$name.md"
    printf '%s\n\n' "$name" && cat "$out/$name.md"
  else
    echo "$name: status $?, see $out/$name.log"
  fi
}

big=resnet50@224x256,vgg16@224x256
half=(--dtype bfloat16 --seconds 3 --rounds 2)
part train train --cases "$big" "${half[@]}"
part frozen frozen --cases "$big" "${half[@]}"
part pipeline pipeline --cases resnet18@64x512 "${half[@]}" ${IMAGES:+--images "$IMAGES"}
part infer infer --cases "$big" "${half[@]}"

# What XLA's flags change; one that this release does not know ends its process, and is left out.
flags=(
  plain=
  latency_hiding=--xla_gpu_enable_latency_hiding_scheduler=true
  no_command_buffers=--xla_gpu_enable_command_buffer=
  no_triton_gemm=--xla_gpu_enable_triton_gemm=false
  autotune_2=--xla_gpu_autotune_level=2
)
for flag in "${flags[@]}"; do
  XLA_FLAGS="${XLA_FLAGS:-} ${flag#*=}" part "flags_${flag%%=*}" train --cases resnet50@224x256,resnet18@64x512 \
    --contenders fer_jax --dtype bfloat16 --seconds 3 --rounds 1
done
part memory memory --cases resnet50@224x256 --dtype bfloat16 --seconds 1 --rounds 1
part train_float32 train --cases resnet50@224x128 --seconds 3 --rounds 2
part startup startup --rounds 1
