#include "textflag.h"

DATA ·message+0(SB)/8, $"cc-ci-ru"
DATA ·message+8(SB)/8, $"n: the h"
DATA ·message+16(SB)/8, $"ard limi"
DATA ·message+24(SB)/8, $"t of mem"
DATA ·message+32(SB)/8, $"ory (uli"
DATA ·message+40(SB)/8, $"mit -v o"
DATA ·message+48(SB)/8, $"r -d, Li"
DATA ·message+56(SB)/8, $"mitAS= o"
DATA ·message+64(SB)/8, $"r LimitD"
DATA ·message+72(SB)/8, $"ATA=) is"
DATA ·message+80(SB)/8, $" below 1"
DATA ·message+88(SB)/8, $" GiB, so"
DATA ·message+96(SB)/8, $" cc-ci-r"
DATA ·message+104(SB)/8, $"un canno"
DATA ·message+112(SB)/8, $"t start;"
DATA ·message+120(SB)/8, $" raise o"
DATA ·message+128(SB)/8, $"r remove"
DATA ·message+136(SB)/8, $" the lim"
DATA ·message+144(SB)/8, $"it\n\x00\x00\x00\x00\x00"
GLOBL ·message(SB), RODATA|NOPTR, $152
DATA ·messageSize(SB)/8, $147
GLOBL ·messageSize(SB), RODATA|NOPTR, $8

DATA ·oneThread+0(SB)/8, $"GOMAXPRO"
DATA ·oneThread+8(SB)/8, $"CS=01\x00\x00\x00"
GLOBL ·oneThread(SB), RODATA|NOPTR, $16
