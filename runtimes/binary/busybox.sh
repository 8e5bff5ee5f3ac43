#!/bin/sh
# Builds busybox from Debian's source package, its patches and its static configuration, as a static program of musl.
#
# busybox.sh <target file>: runs in a Debian container as root, with gcc, make, musl-tools, bzip2, xz-utils and patch installed.
# A call of a function is mostly starting programs, and a program of musl starts more than twice as fast as Debian's own static
# busybox, which is one of glibc. Exit status 75 (EX_TEMPFAIL): the package sources have no source package of it.
set -eu
target=$1
work=$(mktemp -d)
cd "$work"

# Debian's sources.list names binary packages only, in one of two formats.
find /etc/apt/sources.list.d -name '*.sources' -exec sed -i 's/^Types:.*/Types: deb deb-src/' {} +
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
  if [ -f "$list" ]; then
    sed -n 's/^deb /deb-src /p' "$list" > lines
    cat lines >> "$list"
  fi
done
apt-get -qq update && apt-get -qq source --download-only busybox || exit 75

mkdir source
tar -xf busybox_*.orig.tar.* -C source --strip-components=1
tar -xf busybox_*.debian.tar.* -C source
cd source
grep -v -E '^(#|$)' debian/patches/series | while read -r name _; do
  patch -s -p1 < "debian/patches/$name"
done

# musl's compiler looks into no folder of glibc's, and the kernel's headers are among those.
mkdir headers
for folder in linux asm-generic mtd; do ln -s "/usr/include/$folder" headers/; done
ln -s "/usr/include/$(gcc -dumpmachine)/asm" headers/asm

off() {
  for option; do sed -i "s/^CONFIG_$option=.*/# CONFIG_$option is not set/" .config; done
}
cp debian/config/pkg/static .config
# glibc's extensions to regular expressions, and what musl has not.
off EXTRA_COMPAT FEATURE_VI_REGEX_SEARCH FEATURE_UTMP FEATURE_WTMP TC
# What needs a system of its own, its users, a terminal or root: a handler has none.
off $(grep -rhoE '^//config:config [A-Z0-9_]+' init loginutils modutils console-tools e2fsprogs mailutils printutils runit \
  sysklogd networking/udhcp | cut -d' ' -f2)
# One read-execute and one read-write mapping: half as many to set up at each start.
sed -i -e 's/^CONFIG_EXTRA_CFLAGS=.*/CONFIG_EXTRA_CFLAGS="-isystem headers"/' \
  -e 's/^CONFIG_EXTRA_LDFLAGS=.*/CONFIG_EXTRA_LDFLAGS="-no-pie -Wl,-z,noseparate-code,-z,norelro"/' \
  -e '/CONFIG_STATIC[= ]/d' .config
echo CONFIG_STATIC=y >> .config
yes '' 2> /dev/null | make CC=musl-gcc oldconfig > /dev/null
make -s -j"$(nproc)" CC=musl-gcc busybox > log 2>&1 || { tail -n 40 log >&2; exit 1; }
cp busybox "$target"
cd /
rm -rf "$work"
[ "$("$target" sh -c 'echo ok | cat')" = ok ]
