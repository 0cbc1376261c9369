# Varnish, configured for this job: keyed on appid and card, no expiry during a run.
vcl 4.1;

backend carrier {
    .host = "@ORIGIN_HOST@";
    .port = "@ORIGIN_PORT@";
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
    set beresp.ttl = 2h;
    return (deliver);
}
