/* Output of the test programs: standard output on a host, semihosting on a chip. */
#ifndef CONSOLE_H
#define CONSOLE_H

void console_print(const char *text);

#endif
