# Made from the parsers of maildrop.
complete -c maildrop -f -a 'start stop restart status fg once'
complete -c maildrop -l help -d 'show this help message and exit'
complete -c maildrop -l config -r -F -d 'the configuration file'
complete -c maildrop -l timeout -r -F -d 'seconds that stop waits for the daemon\'s end'
complete -c maildrop -l verbose -d 'fg and once: every mail to standard error'
