#!/bin/sh
# What users of the official images expect: an empty volume becomes a server with the root password,
# the database and the user that the environment names.
set -e
[ "$1" = mysqld ] || exec "$@"
shift
data=/var/lib/mysql
install -d -o mysql -g mysql /run/mysqld
set -- mariadbd --user=mysql --bind-address='*' --skip-name-resolve "$@"
if [ ! -d "$data/mysql" ]; then
    [ -n "$MYSQL_ROOT_PASSWORD" ] || { echo 'MYSQL_ROOT_PASSWORD is not given' >&2; exit 1; }
    # A name that a killed first start leaves is not taken for a server's data.
    rm -rf "$data/.new"
    mkdir "$data/.new"
    chown mysql:mysql "$data" "$data/.new"
    mariadb-install-db --user=mysql --datadir="$data/.new" --skip-test-db \
        --auth-root-authentication-method=normal >/dev/null
    {
        echo "ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        echo "CREATE USER root@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
        [ -z "$MYSQL_DATABASE" ] || echo "CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`;"
        if [ -n "$MYSQL_USER" ]; then
            echo "CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';"
            [ -z "$MYSQL_DATABASE" ] || echo "GRANT ALL ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';"
        fi
    } >/run/mysqld/first.sql
    # The directory `mysql` comes last: it says that the rest is there.
    find "$data/.new" -mindepth 1 -maxdepth 1 ! -name mysql -exec mv -t "$data" {} +
    mv "$data/.new/mysql" "$data"
    rmdir "$data/.new"
    set -- "$@" --init-file=/run/mysqld/first.sql
fi
exec "$@"
