//go:build !purego

#include "textflag.h"

// lanes: at 0, mask 64, slot 128, in 192.

// func opinionsAVX2(l *lanes, slots *uint32, w1, w2 *int32, stretch *int32, nib uint32, n int, first int32) (sum1, sum2 int64)
TEXT ·opinionsAVX2(SB), NOSPLIT, $0-80
	MOVQ l+0(FP), DI
	MOVQ slots+8(FP), SI
	MOVQ w1+16(FP), R8
	MOVQ w2+24(FP), R9
	MOVQ stretch+32(FP), R10
	MOVL nib+40(FP), AX
	VMOVD AX, X15
	VPBROADCASTD X15, Y15
	MOVQ n+48(FP), CX
	MOVL first+56(FP), AX
	VMOVD AX, X14
	VPBROADCASTD X14, Y14
	LEAQ (R8)(CX*4), R11        // second weights of set 1
	LEAQ (R9)(CX*4), R12        // and of set 2
	LEAQ 192(DI)(CX*4), R13     // second opinions

	// constants
	VPCMPEQD Y13, Y13, Y13
	VPSLLD $31, Y13, Y13        // fresh
	MOVL $1023, AX
	VMOVD AX, X12
	VPBROADCASTD X12, Y12
	MOVL $30, AX
	VMOVD AX, X11
	VPBROADCASTD X11, Y11
	MOVL $32768, AX
	VMOVD AX, X10
	VPBROADCASTD X10, Y10
	VPXOR Y8, Y8, Y8            // sum1
	VPXOR Y9, Y9, Y9            // sum2
	XORQ BX, BX                 // byte offset of the group

group:
	VMOVDQU (DI)(BX*1), Y0
	VPADDD Y15, Y0, Y0
	VMOVDQU 64(DI)(BX*1), Y1
	VMOVDQA Y1, Y7              // the mask
	VPXOR Y2, Y2, Y2
	VPGATHERDD Y1, (SI)(Y0*4), Y2
	VPXOR Y13, Y2, Y2
	VPAND Y7, Y2, Y2
	VMOVDQU Y2, 128(DI)(BX*1)

	VPAND Y12, Y2, Y3           // count
	VPXOR Y4, Y4, Y4
	VPCMPEQD Y4, Y3, Y4         // knows nothing
	VPANDN Y7, Y4, Y7           // says something
	VPMINSD Y11, Y3, Y3
	VPSRLD $16, Y2, Y5
	VPSUBD Y10, Y5, Y5          // (s >> 16) - 32768
	VPSLLD $1, Y5, Y6
	VPMULLD Y3, Y5, Y5
	VPADDD Y6, Y5, Y5           // · (min(count, 30) + 2)
	VPSRAD $9, Y5, Y5
	VPAND Y7, Y5, Y5            // second opinion

	VPSRLD $20, Y2, Y3
	VMOVDQA Y7, Y6
	VPXOR Y4, Y4, Y4
	VPGATHERDD Y6, (R10)(Y3*4), Y4
	VPAND Y7, Y4, Y4            // first opinion

	VMOVDQU Y4, 192(DI)(BX*1)
	VMOVDQU Y5, (R13)(BX*1)

	VPSRLQ $32, Y4, Y6          // odd lanes of the first opinion
	VPSRLQ $32, Y5, Y7          // and of the second

	VMOVDQU (R8)(BX*1), Y0
	VPADDD Y14, Y0, Y0
	VPMULDQ Y0, Y4, Y1
	VPADDQ Y1, Y8, Y8
	VPSRLQ $32, Y0, Y0
	VPMULDQ Y0, Y6, Y1
	VPADDQ Y1, Y8, Y8

	VMOVDQU (R11)(BX*1), Y0
	VPADDD Y14, Y0, Y0
	VPMULDQ Y0, Y5, Y1
	VPADDQ Y1, Y8, Y8
	VPSRLQ $32, Y0, Y0
	VPMULDQ Y0, Y7, Y1
	VPADDQ Y1, Y8, Y8

	VMOVDQU (R9)(BX*1), Y0
	VPADDD Y14, Y0, Y0
	VPMULDQ Y0, Y4, Y1
	VPADDQ Y1, Y9, Y9
	VPSRLQ $32, Y0, Y0
	VPMULDQ Y0, Y6, Y1
	VPADDQ Y1, Y9, Y9

	VMOVDQU (R12)(BX*1), Y0
	VPADDD Y14, Y0, Y0
	VPMULDQ Y0, Y5, Y1
	VPADDQ Y1, Y9, Y9
	VPSRLQ $32, Y0, Y0
	VPMULDQ Y0, Y7, Y1
	VPADDQ Y1, Y9, Y9

	ADDQ $32, BX
	SUBQ $8, CX
	JNZ group

	VEXTRACTI128 $1, Y8, X0
	VPADDQ X0, X8, X8
	VPSRLDQ $8, X8, X0
	VPADDQ X0, X8, X8
	VMOVQ X8, sum1+64(FP)
	VEXTRACTI128 $1, Y9, X0
	VPADDQ X0, X9, X9
	VPSRLDQ $8, X9, X0
	VPADDQ X0, X9, X9
	VMOVQ X9, sum2+72(FP)
	VZEROUPPER
	RET

// func learnAVX2(l *lanes, w1, w2 *int32, rates *int32, n int, e1, e2 int32, shift1, shift2 uint64, toward uint32)
TEXT ·learnAVX2(SB), NOSPLIT, $0-68
	MOVQ l+0(FP), DI
	MOVQ w1+8(FP), R8
	MOVQ w2+16(FP), R9
	MOVQ rates+24(FP), R10
	MOVQ n+32(FP), CX
	MOVL e1+40(FP), AX
	VMOVD AX, X15
	VPBROADCASTD X15, Y15
	MOVL e2+44(FP), AX
	VMOVD AX, X14
	VPBROADCASTD X14, Y14
	VMOVQ shift1+48(FP), X13
	VMOVQ shift2+56(FP), X12
	MOVL toward+64(FP), AX
	VMOVD AX, X11
	VPBROADCASTD X11, Y11

	// 1 << (shift - 1)
	VPCMPEQD Y10, Y10, Y10
	VPSRLD $31, Y10, Y10        // ones
	VPSLLD X13, Y10, Y9
	VPSRLD $1, Y9, Y9
	VPSLLD X12, Y10, Y8
	VPSRLD $1, Y8, Y8

	MOVQ CX, DX
	SHLQ $1, DX                 // inputs
	XORQ BX, BX

weights:
	VMOVDQU 192(DI)(BX*1), Y0
	VPMULLD Y15, Y0, Y1
	VPADDD Y9, Y1, Y1
	VPSRAD X13, Y1, Y1
	VPADDD (R8)(BX*1), Y1, Y1
	VMOVDQU Y1, (R8)(BX*1)
	VPMULLD Y14, Y0, Y1
	VPADDD Y8, Y1, Y1
	VPSRAD X12, Y1, Y1
	VPADDD (R9)(BX*1), Y1, Y1
	VMOVDQU Y1, (R9)(BX*1)
	ADDQ $32, BX
	SUBQ $8, DX
	JNZ weights

	MOVL $1023, AX
	VMOVD AX, X9
	VPBROADCASTD X9, Y9
	MOVL $255, AX
	VMOVD AX, X8
	VPBROADCASTD X8, Y8
	VPSLLD $31, Y10, Y7         // fresh
	XORQ BX, BX

slots:
	VMOVDQU 128(DI)(BX*1), Y0
	VPAND Y9, Y0, Y1            // count
	VPSRLD $10, Y0, Y2          // probability
	VPSUBD Y2, Y11, Y3          // toward - probability
	VPCMPEQD Y4, Y4, Y4
	VPXOR Y5, Y5, Y5
	VPGATHERDD Y4, (R10)(Y1*4), Y5
	VPMULDQ Y5, Y3, Y4
	VPSRLQ $16, Y4, Y4
	VPSRLQ $32, Y5, Y5
	VPSRLQ $32, Y3, Y3
	VPMULDQ Y5, Y3, Y3
	VPSRLQ $16, Y3, Y3
	VPSLLQ $32, Y3, Y3
	VPBLENDD $0xaa, Y3, Y4, Y4
	VPADDD Y4, Y2, Y2
	VPSLLD $10, Y2, Y2
	VPADDD Y10, Y1, Y1
	VPMINUD Y8, Y1, Y1          // count + 1, at most 255
	VPOR Y1, Y2, Y2
	VPXOR Y7, Y2, Y2
	VMOVDQU Y2, 128(DI)(BX*1)
	ADDQ $32, BX
	SUBQ $8, CX
	JNZ slots
	VZEROUPPER
	RET
