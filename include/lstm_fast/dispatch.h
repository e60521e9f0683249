/* The ISAs this build holds, best first, and whether the CPU and its operating system run them. */
#ifndef LSTM_FAST_DISPATCH_H
#define LSTM_FAST_DISPATCH_H

#include "lstm_fast/kernels.h"

typedef struct lf_isa {
    const char *name;
    const char *needs; /* CPU features, for people */
    const lf_kernels *f32, *f64;
    int (*supported)(void);
} lf_isa;

extern const lf_isa lf_isas[];
extern const int lf_isa_count;

/* Products of a lower precision for the kernels of an ISA: the first row that the CPU runs serves. */
typedef struct lf_lower {
    const char *isa;
    const char *how; /* instructions, for people */
    const lf_products *products;
    int (*supported)(void);
} lf_lower;

extern const lf_lower lf_lowers[];
extern const int lf_lower_count;

#endif
