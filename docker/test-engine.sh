# shellcheck shell=bash
# Read by docker/test: an engine, a compose and a base image to test with. Where there is no engine, one of our own
# is started, in a directory of its own, with no rule in the firewall. `skip` says why nothing can be tested here.
# shellcheck disable=SC2034,SC2154

skip() {
    echo "docker/test: skipped: $*"
    exit 77
}

# Sets DOCKER_HOST if an engine had to be started; `stop_engine` ends it then.
find_engine() { # DIRECTORY
    command -v docker >/dev/null || skip 'there is no docker here'
    if docker info >/dev/null 2>&1; then
        return
    fi
    [ "$(id -u)" = 0 ] || skip 'no Docker engine answers, and only root could start one'
    command -v dockerd >/dev/null || skip 'no Docker engine answers, and dockerd is not installed'
    engine=$1
    mkdir -p "$engine"
    local bridge=(--bridge none)
    # An engine without this bridge removes it, and another one may use it.
    [ ! -e /sys/class/net/docker0 ] || bridge=()
    dockerd --host "unix://$engine/socket" --data-root "$engine/data" --exec-root "$engine/exec" \
        --pidfile "$engine/pid" "${bridge[@]}" --iptables=false --ip6tables=false \
        --ip-forward=false --ip-masq=false >"$engine/log" 2>&1 </dev/null &
    engine_pid=$!
    export DOCKER_HOST=unix://$engine/socket
    for _ in $(seq 300); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 0.1
    done
    local why
    why=$(grep -o 'msg=.*' "$engine/log" | tail -n 1)
    stop_engine
    skip "no Docker engine answers, and dockerd does not start here: $why"
}

stop_engine() {
    [ -n "${engine_pid:-}" ] || return 0
    kill -TERM "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    engine_pid=
    # Its own mounts, should one be left.
    awk -v "prefix=$engine/" 'index($5, prefix) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        xargs --no-run-if-empty umount || true
    rm -rf "$engine"
}

# Either the plugin or the older program, as `compose`.
find_compose() {
    if docker compose version >/dev/null 2>&1; then
        compose() { docker compose --ansi never "$@"; }
    elif docker-compose version >/dev/null 2>&1; then
        compose() { docker-compose --ansi never "$@"; }
    else
        skip "there is neither 'docker compose' nor docker-compose here"
    fi
    compose version | head -n 1
}

# The base from the engine, else from a registry, else made here. $1: where the one made here is kept.
# Sets `made_base` if the engine did not have it.
find_base() {
    local base=debian:bookworm-slim
    docker image inspect "$base" >/dev/null 2>&1 && return
    made_base=$base
    timeout 60 docker pull "$base" >/dev/null 2>&1 && return
    # Builds of an engine without rules in the firewall reach the network as the host does.
    export BUILD_NETWORK=host
    if [ ! -e "$1" ]; then
        command -v debootstrap >/dev/null || skip "no registry gives $base, and there is no debootstrap to make it"
        [ "$(id -u)" = 0 ] || skip "no registry gives $base, and only root could make it"
        echo "making $base with debootstrap"
        local root="$work/base"
        debootstrap --variant=minbase --include=ca-certificates bookworm "$root" >"$work/debootstrap.log" 2>&1 ||
            skip "no registry gives $base, and debootstrap could not make it: $(tail -n 1 "$work/debootstrap.log")"
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
        mkdir -p "$(dirname "$1")"
        tar -C "$root" -c . >"$1.new"
        mv "$1.new" "$1"
        rm -rf "$root"
    fi
    docker import "$1" "$base" >/dev/null
}
