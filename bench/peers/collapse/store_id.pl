#!/usr/bin/perl
# Squid's store-id helper: what a look-up is an answer to is its appid and its card, not its transid and token.
$| = 1;
while (<STDIN>) {
    my ($appid) = /[?&]appid=([0-9A-Za-z]+)/;
    my ($card) = /[?&]msisdn=([0-9]+)/;
    print $card ? "OK store-id=http://cards.squid.internal/userstatus/$appid/$card\n" : "ERR\n";
}
