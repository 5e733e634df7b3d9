# Names and values of `python -m experiments …` on the tab key, in bash: source experiments/completion.bash
_cpath_experiments() {
    local line=${COMP_LINE:0:COMP_POINT} word before found
    [[ $line == *" -m experiments "* ]] || return  # python with something else: file names, as ever
    word=${line##* }
    found=$(COMP_LINE="experiments ${line#* -m experiments }" "${COMP_WORDS[0]}" -m experiments -sc query=bash 2>/dev/null)
    COMPREPLY=($(compgen -W "$found" -- "$word"))
    before=${word%"${word##*[=:]}"}  # bash takes = and : for ends of words, and replaces what comes after them
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
}
complete -o nospace -o default -F _cpath_experiments python python3
