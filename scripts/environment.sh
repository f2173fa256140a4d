# shellcheck shell=bash
# Sourced by scripts/run, scripts/test and .ci/run. `prepare_environment [EXTRA...]` sets `python` to an interpreter
# that has this checkout of fer_jax and the extras; it installs only what is missing. Variables of the caller:
#
#   FER_JAX_ENV=active   use the `python` that is active, install nothing
#   FER_JAX_ENV=FOLDER   make and use an environment there; default: .venv in the repository
#   FER_JAX_CUDA=1|0     install JAX with or without CUDA; default: with it where there is an NVIDIA driver
#   PYTHON=COMMAND       make the environment with this Python; default: the first of those below that is recent enough

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

say() { printf 'fer_jax: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 2
}

# Prints the version of an interpreter, or what is wrong with it and status 1. Runs on any Python, so on Python 2 too.
examine() {
  "$1" -c 'import sys
version = "Python %d.%d.%d" % sys.version_info[:3]
problem = ""
if sys.version_info < (3, 11):
    problem = version + ", too old"
else:
    import importlib.util
    missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
    if missing:
        problem = version + ", without " + ", ".join(missing)
print(problem or version)
sys.exit(1 if problem else 0)' "${@:2}" 2>/dev/null
}

# Sets `base` to a Python that can make the environment.
find_python() {
  local candidate report reports='' candidates=(python3.13 python3.12 python3.11 python3 python)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if report=$(examine "$candidate" venv ensurepip); then
      base=$candidate
      say "making $environment with $report"
      return
    fi
    reports="$reports${report:+; $candidate is $report}"
  done
  fail "needs Python 3.11 or newer with venv (Debian, Ubuntu: apt install python3-venv)${reports:-; found none}." \
    "Name one with PYTHON=/path/to/python3, or use your own environment with FER_JAX_ENV=active."
}

wants_cuda() {
  case ${FER_JAX_CUDA:-} in
    1) return 0 ;;
    0) return 1 ;;
    *) [ -e /proc/driver/nvidia/version ] || nvidia-smi -L >/dev/null 2>&1 ;;
  esac
}

# Everything that the installation depends on; a stamp per extra holds it.
fingerprint() { printf '%s %s' "$repo" "$(cat "$repo/pyproject.toml" "$repo/constraints.txt" | cksum)"; }

is_ready() {
  local extra stamp
  [ -x "$python" ] || return 1
  for extra in base "$@"; do
    stamp=$environment/fer_jax.$extra.stamp
    [ -f "$stamp" ] && [ "$(<"$stamp")" = "$(fingerprint)" ] || return 1
  done
}

install() {
  local extra extras quiet=-qq
  [ ! -t 2 ] || quiet=
  extras=$(IFS=,; printf '%s' "$*")
  if [ -e "$environment" ] && [ ! -f "$environment/pyvenv.cfg" ]; then
    fail "$environment exists and is not a Python environment; remove it, or name another folder with FER_JAX_ENV"
  fi
  rm -f "$environment"/fer_jax.*.stamp
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    find_python
    "$base" -m venv --clear "$environment"
  fi
  say "installing fer_jax${extras:+[$extras]} with the versions of constraints.txt; a few minutes the first time"
  # As variables the constraints hold in the build environment as well.
  (cd "$repo" && PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
    "$python" -m pip install $quiet --editable ".${extras:+[$extras]}") || {
    say "the installation failed (pip's words are above); the same command tries again"
    exit 1
  }
  for extra in base "$@"; do fingerprint >"$environment/fer_jax.$extra.stamp"; done
}

prepare_environment() {
  local report environment base
  if [ "${FER_JAX_ENV:-}" = active ]; then
    python=$(command -v python || command -v python3) || fail 'FER_JAX_ENV=active, but there is no python on PATH'
    [ "${1:-}" != test ] || set -- pytest xdist
    report=$(examine "$python" jax flax "$@") || fail "FER_JAX_ENV=active: $python is ${report:-broken};" \
      "fer_jax needs Python 3.11 or newer and the packages of pyproject.toml"
    say "using the active environment: $python, $report"
    export PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}"
    return
  fi
  environment=${FER_JAX_ENV:-$repo/.venv}
  case $environment in /*) ;; *) environment=$PWD/$environment ;; esac
  python=$environment/bin/python
  if wants_cuda; then set -- cuda12 "$@"; fi
  if ! is_ready "$@"; then
    exec 9>"$environment.lock"
    if command -v flock >/dev/null && ! flock --nonblock 9; then
      say "waiting for another installation into $environment"
      flock 9
    fi
    is_ready "$@" || install "$@"
    exec 9>&-
  fi
}
