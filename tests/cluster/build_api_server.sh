#!/usr/bin/env bash
# Build Kubernetes' API server for custom resources out of the Go libraries that Debian packages.
#
#     tests/cluster/build_api_server.sh FOLDER
#
# FOLDER/bin gets `crdserver` and `etcd`. Nothing is installed and no root is needed: about 360
# packages (370 MB) of Debian's unstable suite are fetched into FOLDER and unpacked there, which takes
# a minute; the build takes six to twelve minutes of processor time. What is left there afterwards is
# 100 MB. Exit code 3: this machine cannot, and says why.
set -euo pipefail

readonly CANNOT=3
source_folder=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$folder/work

give_up() {
    echo "no API server for custom resources: $1" >&2
    exit "$CANNOT"
}

mirror() { # the first Debian mirror that apt of this machine uses
    sed -nE 's/^(URIs:|deb( \[[^]]*\])?) +(https?:[^ ]*\/debian)\/?( .*)?$/\3/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1
}

fetch_packages() {
    local keys=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$work"/{etc,lists/partial,cache/archives/partial,state,root}
    touch "$work/state/status" # apt is to take nothing for installed
    echo "deb [signed-by=$keys] $(mirror) sid main" >"$work/etc/sources.list"
    local options=(
        -o "Dir::Etc::sourcelist=$work/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State=$work/state" -o "Dir::State::lists=$work/lists"
        -o "Dir::State::status=$work/state/status" -o "Dir::Cache=$work/cache"
        -o Acquire::Languages=none -o APT::Sandbox::User=
    )
    apt-get "${options[@]}" update || return
    apt-get "${options[@]}" install --yes --download-only --no-install-recommends \
        golang-k8s-apiextensions-apiserver-dev golang-1.27-go etcd-server || return
    for package in "$work"/cache/archives/{golang-,gogoprotobuf,etcd-server}*.deb; do
        dpkg --extract "$package" "$work/root"
    done
}

build() {
    local sources=$work/own
    mkdir -p "$sources/src/crdserver" "$folder/bin"
    cp "$source_folder/api_server.go" "$sources/src/crdserver/main.go"
    export GOROOT=$work/root/usr/lib/go-1.27 GOPATH=$sources:$work/root/usr/share/gocode
    export GO111MODULE=off GOTOOLCHAIN=local GOCACHE=$work/gocache CGO_ENABLED=0
    "$GOROOT/bin/go" build -ldflags=-s -o "$folder/bin/crdserver.new" crdserver
    cp "$work/root/usr/bin/etcd" "$folder/bin/etcd"
    mv "$folder/bin/crdserver.new" "$folder/bin/crdserver" # last: whoever sees it has both
}

exec 9>"$folder/.lock"
flock 9 # one build at a time; the others find it done
[ ! -x "$folder/bin/crdserver" ] || exit 0
command -v apt-get >/dev/null && command -v dpkg >/dev/null || give_up "this is not Debian"
[ -n "$(mirror)" ] || give_up "apt of this machine names no Debian mirror"
fetch_packages >"$folder/apt.log" 2>&1 || give_up "Debian's packages cannot be had, see $folder/apt.log"
build >"$folder/build.log" 2>&1 || {
    tail -n 20 "$folder/build.log" >&2
    exit 1
}
rm -rf "$work"
