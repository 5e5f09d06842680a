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
    echo "compose $(compose version --short), engine $(docker version --format "{{.Server.Version}}")"
}

# The base from the engine, else from a registry, else Debian's made here. $2: where the one made here is kept.
# Sets `made_base` if the engine did not have it.
find_base() { # IMAGE FILE
    local base=$1 kept=$2
    docker image inspect "$base" >/dev/null 2>&1 && return
    made_base=$base
    timeout 60 docker pull "$base" >/dev/null 2>&1 && return
    [ "$base" = debian:bookworm-slim ] || skip "no registry gives $base"
    # Builds of an engine without rules in the firewall reach the network as the host does.
    export BUILD_NETWORK=host
    if [ ! -e "$kept" ]; then
        command -v debootstrap >/dev/null || skip "no registry gives $base, and there is no debootstrap to make it"
        [ "$(id -u)" = 0 ] || skip "no registry gives $base, and only root could make it"
        echo "making $base with debootstrap"
        local root="$work/base"
        debootstrap --variant=minbase --include=ca-certificates bookworm "$root" >"$work/debootstrap.log" 2>&1 ||
            skip "no registry gives $base, and debootstrap could not make it: $(tail -n 1 "$work/debootstrap.log")"
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
        mkdir -p "$(dirname "$kept")"
        tar -C "$root" -c . >"$kept.new"
        mv "$kept.new" "$kept"
        rm -rf "$root"
    fi
    docker import "$kept" "$base" >/dev/null
}

# The image needs packages of Debian.
find_packages() { # IMAGE
    docker run --rm --user 0 --network "${BUILD_NETWORK:-default}" --entrypoint sh "$1" -c \
        'apt-get -o Acquire::Retries=2 -o APT::Update::Error-Mode=any update' >"$work/apt.log" 2>&1 ||
        skip "apt-get finds no packages in a container: $(tail -n 1 "$work/apt.log")"
}
