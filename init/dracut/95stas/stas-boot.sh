#!/bin/sh
# Runs when udev has settled, again and again until the root device is there or dracut gives up. On the kernel's command line
# rd.stas=0 forbids it and rd.stas=1 demands it; otherwise a boot table of the firmware does, except in the kernel of a kdump.

wanted=0
if [ ! -e /proc/vmcore ]; then
    for table in /sys/firmware/acpi/tables/NBFT*; do
        [ ! -e "$table" ] || wanted=1
    done
fi
if getargbool "$wanted" rd.stas; then
    modprobe -q -a nvme_fabrics nvme_tcp
    stas boot --network
fi
