# Completions for fish. To be installed in fish's directory of vendor completions, with links to it as stafd.fish, stacd.fish,
# stafctl.fish, stacctl.fish and stasadm.fish.

# The words of the command line, `stas NAME …` being NAME.
function __stas_words
    set -l words (commandline -opc)
    set words[1] (string replace -r '.*/' '' -- $words[1])
    test "$words[1]" = stas; and set -e words[1]
    string collect -- $words
end

# Whether one of the programs NAMES is called and, if there are COMMANDS after `--`, one of them was given.
function __stas_is
    set -l words (__stas_words | string split \n)
    set -l at (contains -i -- -- $argv)
    if test -z "$at"
        contains -- "$words[1]" $argv
        return
    end
    contains -- "$words[1]" $argv[1..(math $at - 1)]; or return 1
    for word in $words[2..-1]
        contains -- $word $argv[(math $at + 1)..-1]; and return 0
    end
    return 1
end

# Whether one of the programs is called and has no command yet.
function __stas_wants_command
    __stas_is $argv
    and not __stas_is $argv -- ls adlp dlp status watch tron troff hostnqn hostid set-symname clear-symname check convert
end

for program in stas stafd stacd stafctl stacctl stasadm
    complete -c $program -f

    complete -c $program -n '__stas_is run stafd stacd' -s s -l syslog -d 'log to syslog'
    complete -c $program -n '__stas_is run boot stafd stacd' -l tron -d 'log debug messages'
    complete -c $program -n '__stas_is run stafd stacd' -l no-wait -d 'exit when /dev/nvme-fabrics is missing'
    complete -c $program -n '__stas_is run stafd stacd' -l idl -rF -d 'write the D-Bus introspection XML'
    complete -c $program -n '__stas_is stafd stacd' -s f -l conf-file -rF -d configuration
    complete -c $program -n '__stas_is run boot' -l stafd-conf -rF -d 'configuration of the finder'
    complete -c $program -n '__stas_is run boot' -l stacd-conf -rF -d 'configuration of the connector'

    complete -c $program -n '__stas_is boot' -l network -d 'set the network interfaces up'
    complete -c $program -n '__stas_is boot' -l until -x -d 'device, NQN or namespace to wait for'
    complete -c $program -n '__stas_is boot' -l deadline -x -d 'how many seconds to wait'
    complete -c $program -n '__stas_is boot' -l nbft -rF -d 'a copy of a table'
    complete -c $program -n '__stas_is boot' -l kmsg -d 'log to the kernel\'s log'

    complete -c $program -n '__stas_wants_command stafctl stacctl' -a ls -d 'the controllers'
    complete -c $program -n '__stas_wants_command stafctl' -a adlp -d 'all discovery log pages'
    complete -c $program -n '__stas_wants_command stafctl' -a dlp -d 'the log page of one discovery controller'
    complete -c $program -n '__stas_wants_command stafctl stacctl' -a status -d 'the daemon itself'
    complete -c $program -n '__stas_wants_command stafctl stacctl' -a watch -d 'a line for each change'
    complete -c $program -n '__stas_wants_command stafctl stacctl' -a tron -d 'trace on'
    complete -c $program -n '__stas_wants_command stafctl stacctl' -a troff -d 'trace off'
    complete -c $program -n '__stas_is stafctl stacctl tree nbft' -s o -l output -xa json -d 'output format'
    complete -c $program -n '__stas_is stafctl stacctl -- ls adlp' -s d -l detailed -d 'show more'
    complete -c $program -n '__stas_is stafctl -- dlp' -s a -l traddr -x -d 'address of the discovery controller'
    complete -c $program -n '__stas_is stafctl -- dlp' -s s -l trsvcid -x -d 'its port'
    complete -c $program -n '__stas_is stafctl -- dlp' -s t -l transport -xa 'tcp rdma fc loop' -d transport
    complete -c $program -n '__stas_is stafctl -- dlp' -s n -l nqn -x -d 'its subsystem NQN'
    complete -c $program -n '__stas_is stafctl -- dlp' -s f -l host-iface -xa '(command ls /sys/class/net)' \
        -d 'interface of this host'
    complete -c $program -n '__stas_is stafctl -- dlp' -s w -l host-traddr -x -d 'address of this host'
    complete -c $program -n '__stas_is stafctl -- dlp' -s q -l host-nqn -x -d 'NQN of this host'

    complete -c $program -n '__stas_is nbft' -s f -l file -rF -d 'a copy of a table'

    complete -c $program -n '__stas_wants_command stasadm' -a hostnqn -d 'make the host NQN'
    complete -c $program -n '__stas_wants_command stasadm' -a hostid -d 'make the host identifier'
    complete -c $program -n '__stas_wants_command stasadm' -a set-symname -d 'set the symbolic name'
    complete -c $program -n '__stas_wants_command stasadm' -a clear-symname -d 'have no symbolic name'
    complete -c $program -n '__stas_wants_command stasadm' -a check -d 'read all configuration files, print what is wrong'
    complete -c $program -n '__stas_wants_command stasadm' -a convert -d 'print a file of nvme-stas as TOML'
    complete -c $program -n '__stas_is stasadm' -s c -l conf-file -rF -d 'configuration of the host'
    complete -c $program -n '__stas_is stasadm -- hostnqn hostid set-symname' -s f -l file -rF \
        -d 'keep the value in this file'
    complete -c $program -n '__stas_is stasadm -- hostnqn hostid' -l if-missing -d 'make it only if the host has none'
    complete -c $program -n '__stas_is stasadm -- check' -l stafd-conf -rF -d 'configuration of stafd'
    complete -c $program -n '__stas_is stasadm -- check' -l stacd-conf -rF -d 'configuration of stacd'
    complete -c $program -n '__stas_is stasadm -- convert' -F

    complete -c $program -s h -l help -d 'print help'
    complete -c $program -s v -l version -d 'print the version'
end

complete -c stas -n 'test (count (commandline -opc)) -eq 1' -a 'run boot stafd stacd stafctl stacctl stasadm tree nbft'
