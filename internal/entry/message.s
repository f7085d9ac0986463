#include "textflag.h"

DATA ·message+0(SB)/8, $"cc-ci-ru"
DATA ·message+8(SB)/8, $"n: the c"
DATA ·message+16(SB)/8, $"aller li"
DATA ·message+24(SB)/8, $"mits the"
DATA ·message+32(SB)/8, $" memory "
DATA ·message+40(SB)/8, $"of each "
DATA ·message+48(SB)/8, $"process "
DATA ·message+56(SB)/8, $"(ulimit "
DATA ·message+64(SB)/8, $"-v or -d"
DATA ·message+72(SB)/8, $") to les"
DATA ·message+80(SB)/8, $"s than 1"
DATA ·message+88(SB)/8, $" GiB, wi"
DATA ·message+96(SB)/8, $"th which"
DATA ·message+104(SB)/8, $" cc-ci-r"
DATA ·message+112(SB)/8, $"un canno"
DATA ·message+120(SB)/8, $"t start;"
DATA ·message+128(SB)/8, $" remove "
DATA ·message+136(SB)/8, $"the limi"
DATA ·message+144(SB)/8, $"t\n\x00\x00\x00\x00\x00\x00"
GLOBL ·message(SB), RODATA|NOPTR, $152
DATA ·messageSize(SB)/8, $146
GLOBL ·messageSize(SB), RODATA|NOPTR, $8
