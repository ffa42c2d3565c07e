#!/usr/bin/env bash
# Builds static programs for each platform into dist/, with checksums.
# The same source and Go give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/../.."
go=${GO:-go}
out=${1:-dist}
for platform in ${PLATFORMS:-linux/amd64 linux/arm64}; do
	os=${platform%/*} arch=${platform#*/}
	dir=$out/$os-$arch
	mkdir -p "$dir"
	for program in holdfast holdfastctl controlplane kubelet; do
		CGO_ENABLED=0 GOOS=$os GOARCH=$arch "$go" build -trimpath -buildvcs=auto -ldflags '-s -w -buildid=' -o "$dir/$program" "./cmd/$program"
	done
	cp LICENSE contrib/systemd/*.service "$dir/"
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$out" -czf "$out/holdfast-$os-$arch.tar.gz" "$os-$arch"
done
(cd "$out" && sha256sum ./*.tar.gz >SHA256SUMS)
