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

/* The products that an ISA has for a lower precision. */
typedef struct lf_lower {
    const char *isa;
    const char *how; /* instructions, for people */
    const lf_products *products;
} lf_lower;

extern const lf_lower lf_lowers[];
extern const int lf_lower_count;

#endif
