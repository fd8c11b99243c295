<?php
/** The value of NAME, or what the file that NAME_FILE names holds. */
function from_environment(string $name, string $otherwise): string {
    $file = getenv("{$name}_FILE");
    return $file ? rtrim(file_get_contents($file), "\r\n") : (getenv($name) ?: $otherwise);
}
define('DB_HOST', from_environment('WORDPRESS_DB_HOST', 'mysql'));
define('DB_NAME', from_environment('WORDPRESS_DB_NAME', 'wordpress'));
define('DB_USER', from_environment('WORDPRESS_DB_USER', 'example username'));
define('DB_PASSWORD', from_environment('WORDPRESS_DB_PASSWORD', 'example password'));
define('DB_CHARSET', from_environment('WORDPRESS_DB_CHARSET', 'utf8mb4'));
define('DB_COLLATE', from_environment('WORDPRESS_DB_COLLATE', ''));
foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY',
        'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $key) {
    define($key, from_environment("WORDPRESS_$key", hash('sha256', $key . DB_PASSWORD)));
}
$table_prefix = from_environment('WORDPRESS_TABLE_PREFIX', 'wp_');
define('WP_DEBUG', (bool) from_environment('WORDPRESS_DEBUG', ''));
eval(from_environment('WORDPRESS_CONFIG_EXTRA', ''));
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
