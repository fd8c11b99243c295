#!/bin/sh
# What users of the official image expect: the program's files come into an empty /var/www/html, and
# its configuration is the environment.
set -e
if [ "$1" = apache2-foreground ] && [ ! -e index.php ]; then
    cp -a /usr/src/wordpress/. .
fi
exec "$@"
