/* A program that uses the header. */
#include "cmiot_signer.h"

int main(void) { return cmiot_version() == CMIOT_SIGNER_VERSION ? 0 : 1; }
