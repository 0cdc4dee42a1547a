#!/bin/sh
# Runs when udev has settled, again and again until the root device is there or dracut gives up. rd.stas=0 on the kernel's
# command line forbids it; the kernel of a kdump needs rd.stas=1, which an image for kdump has in it if the dump goes there.

wanted=1
[ ! -e /proc/vmcore ] || wanted=0
if getargbool "$wanted" rd.stas; then
    modprobe -q -a nvme_fabrics nvme_tcp
    stas boot --network
fi
