/* The console of a host: standard output. */
#include "console.h"

#include <stdio.h>

void console_print(const char *text) { fputs(text, stdout); }
