#!/usr/bin/env bash
# Runs every test: the crates', the whole server's, and real clients' (psql, psycopg, asyncpg, JDBC). Installs the clients that are missing
# (Debian packages and a Python environment of its own). Ends with a count.
set -uo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# psql for the client tests; a Vulkan driver in software, so that the GPU code runs on machines without a GPU.
install() {
    command -v apt-get >/dev/null || return 1
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@" >/dev/null
}
missing=()
command -v psql >/dev/null || missing+=(postgresql-client)
command -v javac >/dev/null || missing+=(default-jdk-headless)
[ -e "${THANOSQL_TEST_JDBC:-/usr/share/java/postgresql.jar}" ] || missing+=(libpostgresql-jdbc-java)
command -v openssl >/dev/null || missing+=(openssl)
ls /usr/share/vulkan/icd.d/*lvp* >/dev/null 2>&1 || missing+=(mesa-vulkan-drivers libvulkan1)
ldconfig -p 2>/dev/null | grep -q libvulkan.so.1 || missing+=(libvulkan1)
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    install "${missing[@]}" || { echo "cannot install ${missing[*]}: install them and run this again"; exit 1; }
fi
python=${THANOSQL_TEST_PYTHON:-}
if [ -z "$python" ]; then
    environment="${XDG_CACHE_HOME:-$HOME/.cache}/thanosql-test-python"
    python="$environment/bin/python"
    if ! "$python" -c 'import psycopg, yaml, sqlalchemy, asyncpg, greenlet' 2>/dev/null; then
        python3 -m venv "$environment" && "$environment/bin/pip" install --quiet 'psycopg[binary]' pyyaml 'sqlalchemy[asyncio]' asyncpg \
            || { echo "cannot install psycopg, pyyaml, sqlalchemy and asyncpg"; exit 1; }
    fi
fi
export THANOSQL_TEST_PYTHON="$python"
export THANOSQL_REQUIRE_VULKAN=1
# A full disk is tried on one of the test's own, where the system allows that.
unshare --user --map-root-user --mount true 2>/dev/null && export THANOSQL_REQUIRE_NAMESPACES=1
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"

cargo test --release --workspace --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

count() { awk -v word="$1" '/^test result:/ { for (i = 1; i < NF; i++) if ($(i + 1) ~ "^" word) total += $i } END { print total + 0 }' "$log"; }
passed=$(count passed)
failed=$(count failed)
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    failed=1 # something did not compile or died without a result
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
