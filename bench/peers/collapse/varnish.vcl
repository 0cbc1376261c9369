# Varnish for `cargo xtask bench collapse`: a day of grace, no good entry given up for an error, errors for a second.
vcl 4.1;

backend carrier {
    .host = "@ORIGIN_HOST@";
    .port = "@ORIGIN_PORT@";
    .connect_timeout = 2s;
    .first_byte_timeout = 2s;
    .between_bytes_timeout = 2s;
}

sub vcl_recv {
    return (hash);
}

sub vcl_hash {
    hash_data(regsub(req.url, "^.*[?&]appid=([0-9A-Za-z]+).*$", "\1"));
    hash_data(regsub(req.url, "^.*[?&]msisdn=([0-9]+).*$", "\1"));
    return (lookup);
}

sub vcl_backend_response {
    if (beresp.status >= 500) {
        if (bereq.is_bgfetch) {
            return (abandon);
        }
        set beresp.ttl = 1s;
        set beresp.grace = 0s;
        return (deliver);
    }
    set beresp.ttl = @FRESH@s;
    set beresp.grace = 24h;
    return (deliver);
}

sub vcl_backend_error {
    if (bereq.is_bgfetch) {
        return (abandon);
    }
    set beresp.ttl = 1s;
    set beresp.grace = 0s;
    return (deliver);
}
