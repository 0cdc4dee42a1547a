#!/bin/bash
# dracut module: the root file system, or a kdump target, on NVMe over Fabrics. `stas boot` does all of it; here is only what
# it needs in the image, and when (stas-boot.sh).

# Whether a block device, as MAJOR:MINOR, is a namespace reached over a fabric, or a part of one.
is_over_fabrics() {
    local disk
    disk=$(readlink -e "/sys/dev/block/$1") || return 1
    [[ -e $disk/partition ]] && disk=${disk%/*}
    grep -qsxE 'tcp|rdma|fc' "$disk"/device/transport "$disk"/device/nvme*/transport
}

# An image for this host only, as every image for kdump is one, gets this if the host's devices need it; others get it anyway.
check() {
    require_binaries stas || return 1
    if [[ ${hostonly-} || ${mount_needs-} ]]; then
        for_each_host_dev_and_slaves is_over_fabrics || return 255
    fi
}

depends() {
    echo kernel-network-modules
}

installkernel() {
    hostonly='' instmods nvme_fabrics nvme_tcp 8021q crc32c_generic
}

# A dump goes there: see stas-boot.sh.
cmdline() {
    [[ ! ${hostonly-} ]] || printf ' rd.stas=1'
}

install() {
    inst_multiple stas
    inst_hook initqueue/settled 95 "$moddir/stas-boot.sh"
    # Some connections are bound to an interface by its name, so it must have its final one: udev gives it by these.
    inst_multiple -o "${systemdnetwork-}/99-default.link"
    if [[ ${hostonly-} ]]; then
        # Who the host is, and what it connects besides what its boot table says.
        inst_multiple -o /etc/nvme/hostnqn /etc/nvme/hostid /etc/nvme/hostkey /etc/stas/{sys,stafd,stacd}.conf
        inst_multiple -H -o "${systemdnetworkconfdir-}/*.link"
        cmdline >"$initdir/etc/cmdline.d/95stas.conf"
    fi
    dracut_need_initqueue
}
