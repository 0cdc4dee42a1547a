# Completions of stas, stafd, stacd, stafctl, stacctl and stasadm for bash.
# To be installed as stas, with links to it under the other names, in bash-completion's directory of completions.

_stas() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} first=1
    local name=${COMP_WORDS[0]##*/} command='' word words='' path=''
    COMPREPLY=()

    # `stas NAME …` is NAME.
    if [[ $name == stas ]]; then
        if ((COMP_CWORD == 1)); then
            COMPREPLY=($(compgen -W 'run boot stafd stacd stafctl stacctl stasadm tree nbft -h --help -v --version' -- "$cur"))
            return
        fi
        name=${COMP_WORDS[1]} first=2
    fi

    case $name:$prev in
        *:-o | *:--output) words=json ;;
        stafctl:-t | stafctl:--transport) words='tcp rdma fc loop' ;;
        stafctl:-f | stafctl:--host-iface)
            for word in /sys/class/net/*; do words+=" ${word##*/}"; done
            ;;
        *:-f | *:-c | *:convert | *:--conf-file | *:--file | *:--idl | *:--nbft | *:--stafd-conf | *:--stacd-conf) path=1 ;;
        stafctl:-[asnwq] | stafctl:--traddr | stafctl:--trsvcid | stafctl:--nqn | stafctl:--host-traddr | \
            stafctl:--host-nqn | stasadm:set-symname | boot:--deadline | boot:--until) return ;;
    esac
    if [[ $path ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$cur"))
        return
    elif [[ $words ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
        return
    fi

    for word in "${COMP_WORDS[@]:first:COMP_CWORD-first}"; do
        case $word in
            ls | adlp | dlp | status | tron | troff | watch | hostnqn | hostid | set-symname | clear-symname | check | convert)
                command=$word
                break
                ;;
        esac
    done
    case $name:$command in
        stafd: | stacd:) words='-f --conf-file -s --syslog --tron --no-wait --idl -v --version -h --help' ;;
        run:) words='--stafd-conf --stacd-conf -s --syslog --tron --no-wait --idl -v --version -h --help' ;;
        boot:) words='--network --until --deadline --nbft --stafd-conf --stacd-conf --kmsg --tron -v --version -h --help' ;;
        stafctl:) words='ls adlp dlp status tron troff watch -o --output -h --help -v --version' ;;
        stacctl:) words='ls status tron troff watch -o --output -h --help -v --version' ;;
        stafctl:dlp)
            words='-a --traddr -s --trsvcid -t --transport -n --nqn -f --host-iface -w --host-traddr -q --host-nqn
                   -o --output'
            ;;
        stafctl:ls | stacctl:ls | stafctl:adlp) words='-d --detailed -o --output' ;;
        stafctl:status | stacctl:status | stafctl:watch | stacctl:watch) words='-o --output' ;;
        tree:) words='-o --output -h --help' ;;
        nbft:) words='-f --file -o --output -h --help' ;;
        stasadm:)
            words='hostnqn hostid set-symname clear-symname check convert -c --conf-file -h --help -v --version'
            ;;
        stasadm:hostnqn | stasadm:hostid) words='-f --file --if-missing -c --conf-file' ;;
        stasadm:set-symname) words='-f --file -c --conf-file' ;;
        stasadm:check) words='--stafd-conf --stacd-conf -c --conf-file' ;;
        stasadm:clear-symname) words='-c --conf-file' ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}

complete -F _stas stas stafd stacd stafctl stacctl stasadm
