"""The names of the standard library and numpy that dynamic calls may reach by default: exactly these."""

from __future__ import annotations

from typing import Final

#: By module: the functions, classes and constants that dynamic calls may name.
MODULES: Final[dict[str, str]] = {
    "math": (
        "acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2"
        " expm1 fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp"
        " lgamma log log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau"
        " trunc ulp"
    ),
    "cmath": (
        "acos acosh asin asinh atan atanh cos cosh e exp inf infj isclose isfinite isinf isnan log log10 nan nanj"
        " phase pi polar rect sin sinh sqrt tan tanh tau"
    ),
    "statistics": (
        "NormalDist correlation covariance fmean geometric_mean harmonic_mean linear_regression mean median"
        " median_grouped median_high median_low mode multimode pstdev pvariance quantiles stdev variance"
    ),
    "decimal": (
        "Decimal ROUND_05UP ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP"
    ),
    "fractions": "Fraction",
    "datetime": "date datetime time timedelta timezone MINYEAR MAXYEAR UTC",
    "collections": "Counter OrderedDict UserString defaultdict deque",
    "itertools": (
        "accumulate batched chain combinations combinations_with_replacement compress count cycle groupby islice"
        " pairwise permutations product repeat tee zip_longest"
    ),
    "json": "dumps loads",
    "re": (
        "match fullmatch search sub subn split findall finditer compile escape A I M S X U ASCII IGNORECASE MULTILINE"
        " DOTALL VERBOSE UNICODE NOFLAG"
    ),
    "random": (
        "Random betavariate choice choices expovariate gammavariate gauss getrandbits lognormvariate normalvariate"
        " paretovariate randbytes randint random randrange sample seed shuffle triangular uniform vonmisesvariate"
        " weibullvariate"
    ),
    "numpy": (
        "False_ True_ abs absolute acos acosh add all allclose amax amin angle any append arange arccos arccosh"
        " arcsin arcsinh arctan arctan2 arctanh argmax argmin argpartition argsort argwhere around array array2string"
        " array_equal array_equiv array_repr array_split array_str asanyarray asarray ascontiguousarray asfortranarray"
        " asin asinh astype atan atan2 atanh atleast_1d atleast_2d atleast_3d average bartlett base_repr binary_repr"
        " bincount bitwise_and bitwise_count bitwise_invert bitwise_left_shift bitwise_not bitwise_or"
        " bitwise_right_shift bitwise_xor blackman block bool_ broadcast_arrays broadcast_shapes broadcast_to"
        " busday_count busday_offset byte bytes_ can_cast cbrt cdouble ceil choose clip clongdouble column_stack"
        " common_type complex128 complex256 complex64 compress concat concatenate conj conjugate convolve copy"
        " copysign copyto corrcoef correlate cos cosh count_nonzero cov cross csingle cumprod cumsum cumulative_prod"
        " cumulative_sum datetime64 datetime_as_string datetime_data deg2rad degrees delete diag diag_indices"
        " diag_indices_from diagflat diagonal diff digitize divide divmod dot double dsplit dstack e ediff1d einsum"
        " einsum_path equal euler_gamma exp exp2 expand_dims expm1 extract eye fabs fill_diagonal finfo fix"
        " flatnonzero flip fliplr flipud float128 float16 float32 float64 float_power floor floor_divide fmax fmin"
        " fmod format_float_positional format_float_scientific frexp fromiter full full_like gcd genfromtxt geomspace"
        " get_printoptions gradient greater greater_equal half hamming hanning heaviside histogram histogram2d"
        " histogram_bin_edges histogramdd hsplit hstack hypot i0 identity iinfo imag indices inf inner insert int16"
        " int32 int64 int8 int_ intc interp intersect1d intp invert is_busday isclose iscomplex iscomplexobj isdtype"
        " isfinite isfortran isin isinf isnan isnat isneginf isposinf isreal isrealobj isscalar issubdtype ix_ kaiser"
        " kron lcm ldexp left_shift less less_equal lexsort linspace little_endian load loadtxt log log10 log1p log2"
        " logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logspace long longdouble longlong matmul"
        " matrix_transpose matvec max maximum mean median meshgrid min min_scalar_type minimum modf moveaxis multiply"
        " nan nan_to_num nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile"
        " nanprod nanquantile nanstd nansum nanvar ndim negative nextafter nonzero not_equal ones ones_like outer"
        " packbits pad partition percentile permute_dims pi place poly poly1d polyadd polyder polydiv polyfit polyint"
        " polymul polysub polyval positive pow power prod promote_types ptp put put_along_axis putmask quantile"
        " rad2deg radians ravel ravel_multi_index real real_if_close reciprocal remainder repeat reshape resize"
        " result_type right_shift rint roll rollaxis roots rot90 round row_stack searchsorted select setdiff1d"
        " setxor1d shape short sign signbit sin sinc single sinh size sort sort_complex spacing split sqrt square"
        " squeeze stack std str_ subtract sum swapaxes take take_along_axis tan tanh tensordot tile timedelta64 trace"
        " transpose trapezoid tri tril tril_indices tril_indices_from trim_zeros triu triu_indices triu_indices_from"
        " true_divide trunc ubyte uint uint16 uint32 uint64 uint8 uintc uintp ulong ulonglong union1d unique"
        " unique_all unique_counts unique_inverse unique_values unpackbits unravel_index unstack unwrap ushort vander"
        " var vdot vecdot vecmat vsplit vstack where zeros zeros_like bool __version__ ndarray mod"
    ),
    "numpy.linalg": (
        "cholesky cond cross det diagonal eig eigh eigvals eigvalsh inv lstsq matmul matrix_norm matrix_power"
        " matrix_rank matrix_transpose multi_dot norm outer pinv qr slogdet solve svd svdvals tensordot tensorinv"
        " tensorsolve trace vecdot vector_norm"
    ),
    "numpy.fft": (
        "fft fft2 fftfreq fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2 rfftfreq"
        " rfftn"
    ),
    "numpy.random": (
        "RandomState SeedSequence beta binomial bytes chisquare choice default_rng dirichlet exponential f gamma"
        " geometric gumbel hypergeometric laplace logistic lognormal logseries multinomial multivariate_normal"
        " negative_binomial noncentral_chisquare noncentral_f normal pareto permutation poisson power rand randint"
        " randn random random_sample rayleigh seed shuffle standard_cauchy standard_exponential standard_gamma"
        " standard_normal standard_t triangular uniform vonmises wald weibull zipf"
    ),
    "numpy.ma": (
        "MaskedArray abs absolute add all allclose allequal alltrue amax amin angle anom anomalies any append arange"
        " arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort around array asanyarray asarray"
        " atleast_1d atleast_2d atleast_3d average bitwise_and bitwise_or bitwise_xor ceil choose clip clump_masked"
        " clump_unmasked column_stack common_fill_value compress compress_cols compress_nd compress_rowcols"
        " compress_rows compressed concatenate conjugate convolve copy corrcoef correlate cos cosh count count_masked"
        " cov cumprod cumsum default_fill_value diag diagflat diagonal diff divide dot dstack ediff1d equal exp"
        " expand_dims fabs filled fix_invalid flatnotmasked_contiguous flatnotmasked_edges flatten_mask"
        " flatten_structured_array floor floor_divide fmod getdata getmask getmaskarray greater greater_equal"
        " harden_mask hsplit hstack hypot identity in1d indices inner innerproduct intersect1d isMA isMaskedArray"
        " is_mask is_masked isarray isin left_shift less less_equal log log10 log2 logical_and logical_not logical_or"
        " logical_xor make_mask make_mask_none mask_cols mask_or mask_rowcols mask_rows masked_array masked_equal"
        " masked_greater masked_greater_equal masked_inside masked_invalid masked_less masked_less_equal"
        " masked_not_equal masked_object masked_outside masked_values masked_where max maximum maximum_fill_value mean"
        " median min minimum minimum_fill_value mod multiply ndim negative nonzero not_equal notmasked_contiguous"
        " notmasked_edges ones ones_like outer outerproduct polyfit power prod product ptp put putmask ravel remainder"
        " repeat reshape resize right_shift round round_ row_stack set_fill_value setdiff1d setxor1d shape sin sinh"
        " size soften_mask sometrue sort sqrt squeeze stack std subtract sum swapaxes take tan tanh trace transpose"
        " true_divide union1d unique vander var vstack where zeros zeros_like"
    ),
    "numpy.char": (
        "add array asarray capitalize center count decode encode endswith equal expandtabs find greater greater_equal"
        " index isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle isupper join less less_equal ljust"
        " lower lstrip multiply not_equal partition replace rfind rindex rjust rpartition rsplit rstrip split"
        " splitlines startswith str_len strip swapcase title translate upper zfill"
    ),
    "numpy.strings": (
        "add capitalize center count decode encode endswith equal expandtabs find greater greater_equal index isalnum"
        " isalpha isdecimal isdigit islower isnumeric isspace istitle isupper less less_equal ljust lower lstrip"
        " multiply not_equal partition replace rfind rindex rjust rpartition rstrip slice startswith str_len strip"
        " swapcase title translate upper zfill"
    ),
    "numpy.polynomial": "Chebyshev Hermite HermiteE Laguerre Legendre Polynomial",
    "numpy.polynomial.polynomial": (
        "Polynomial polyadd polycompanion polyder polydiv polyfit polyfromroots polygrid2d polygrid3d polyint"
        " polyline polymul polypow polyroots polysub polytrim polyval polyval2d polyval3d polyvalfromroots polyvander"
        " polyvander2d polyvander3d"
    ),
    "numpy.polynomial.chebyshev": (
        "Chebyshev cheb2poly chebadd chebcompanion chebder chebdiv chebfit chebfromroots chebgauss chebgrid2d"
        " chebgrid3d chebint chebinterpolate chebline chebmul chebpow chebpts1 chebpts2 chebroots chebsub chebtrim"
        " chebval chebval2d chebval3d chebvander chebvander2d chebvander3d chebweight poly2cheb"
    ),
    "numpy.polynomial.hermite": (
        "Hermite herm2poly hermadd hermcompanion hermder hermdiv hermfit hermfromroots hermgauss hermgrid2d"
        " hermgrid3d hermint hermline hermmul hermpow hermroots hermsub hermtrim hermval hermval2d hermval3d"
        " hermvander hermvander2d hermvander3d hermweight poly2herm"
    ),
    "numpy.polynomial.hermite_e": (
        "HermiteE herme2poly hermeadd hermecompanion hermeder hermediv hermefit hermefromroots hermegauss hermegrid2d"
        " hermegrid3d hermeint hermeline hermemul hermepow hermeroots hermesub hermetrim hermeval hermeval2d"
        " hermeval3d hermevander hermevander2d hermevander3d hermeweight poly2herme"
    ),
    "numpy.polynomial.laguerre": (
        "Laguerre lag2poly lagadd lagcompanion lagder lagdiv lagfit lagfromroots laggauss laggrid2d laggrid3d lagint"
        " lagline lagmul lagpow lagroots lagsub lagtrim lagval lagval2d lagval3d lagvander lagvander2d lagvander3d"
        " lagweight poly2lag"
    ),
    "numpy.polynomial.legendre": (
        "Legendre leg2poly legadd legcompanion legder legdiv legfit legfromroots leggauss leggrid2d leggrid3d legint"
        " legline legmul legpow legroots legsub legtrim legval legval2d legval3d legvander legvander2d legvander3d"
        " legweight poly2leg"
    ),
}

#: By class, as module:name: the methods and attributes of its objects that dynamic calls may name.
TYPES: Final[dict[str, str]] = {
    "builtins:int": (
        "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag numerator real to_bytes"
    ),
    "builtins:float": "as_integer_ratio conjugate fromhex hex imag is_integer real",
    "builtins:complex": "conjugate imag real",
    "builtins:bytes": (
        "capitalize center count decode endswith expandtabs find fromhex hex index isalnum isalpha isascii isdigit"
        " islower isspace istitle isupper join ljust lower lstrip maketrans partition removeprefix removesuffix"
        " replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title"
        " translate upper zfill"
    ),
    "builtins:bytearray": (
        "append capitalize center clear copy count decode endswith expandtabs extend find fromhex hex index insert"
        " isalnum isalpha isascii isdigit islower isspace istitle isupper join ljust lower lstrip maketrans partition"
        " pop remove removeprefix removesuffix replace reverse rfind rindex rjust rpartition rsplit rstrip split"
        " splitlines startswith strip swapcase title translate upper zfill"
    ),
    "builtins:list": "append clear copy count extend index insert pop remove reverse sort",
    "builtins:tuple": "count index",
    "builtins:dict": "clear copy fromkeys get items keys pop popitem setdefault update values",
    "builtins:set": (
        "add clear copy difference difference_update discard intersection intersection_update isdisjoint issubset"
        " issuperset pop remove symmetric_difference symmetric_difference_update union update"
    ),
    "builtins:frozenset": ("copy difference intersection isdisjoint issubset issuperset symmetric_difference union"),
    "builtins:range": "count index start step stop",
    "builtins:slice": "start stop step indices",
    "builtins:str": (
        "capitalize casefold center count encode endswith expandtabs find index isalnum isalpha isascii isdecimal"
        " isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip maketrans"
        " partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines"
        " startswith strip swapcase title translate upper zfill"
    ),
    "builtins:dict_keys": "mapping",
    "builtins:dict_values": "mapping",
    "builtins:dict_items": "mapping",
    "builtins:bool": (
        "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag numerator real to_bytes"
    ),
    "datetime:date": (
        "ctime day fromisocalendar fromisoformat fromordinal fromtimestamp isocalendar isoformat isoweekday max min"
        " month replace resolution strftime timetuple today toordinal weekday year"
    ),
    "datetime:datetime": (
        "astimezone combine ctime date day dst fold fromisocalendar fromisoformat fromordinal fromtimestamp hour"
        " isocalendar isoformat isoweekday max microsecond min minute month now replace resolution second strftime"
        " strptime time timestamp timetuple timetz today toordinal tzinfo tzname utcfromtimestamp utcnow utcoffset"
        " utctimetuple weekday year"
    ),
    "datetime:time": (
        "dst fold fromisoformat hour isoformat max microsecond min minute replace resolution second strftime tzinfo"
        " tzname utcoffset"
    ),
    "datetime:timedelta": "days max microseconds min resolution seconds total_seconds",
    "datetime:timezone": "dst fromutc max min tzname utc utcoffset",
    "decimal:Decimal": (
        "adjusted as_integer_ratio as_tuple canonical compare compare_signal compare_total compare_total_mag"
        " conjugate copy_abs copy_negate copy_sign exp fma from_float imag is_canonical is_finite is_infinite is_nan"
        " is_normal is_qnan is_signed is_snan is_subnormal is_zero ln log10 logb logical_and logical_invert logical_or"
        " logical_xor max max_mag min min_mag next_minus next_plus next_toward normalize number_class quantize radix"
        " real remainder_near rotate same_quantum scaleb shift sqrt to_eng_string to_integral to_integral_exact"
        " to_integral_value"
    ),
    "fractions:Fraction": (
        "as_integer_ratio conjugate denominator from_decimal from_float imag limit_denominator numerator real"
    ),
    "statistics:NormalDist": (
        "cdf from_samples inv_cdf mean median mode overlap pdf quantiles samples stdev variance zscore"
    ),
    "collections:Counter": (
        "clear copy elements fromkeys get items keys most_common pop popitem setdefault subtract total update values"
    ),
    "collections:OrderedDict": ("clear copy fromkeys get items keys move_to_end pop popitem setdefault update values"),
    "collections:defaultdict": "clear copy fromkeys get items keys pop popitem setdefault update values",
    "collections:deque": (
        "append appendleft clear copy count extend extendleft index insert maxlen pop popleft remove reverse rotate"
    ),
    "itertools:chain": "from_iterable",
    "re:Pattern": ("findall finditer flags fullmatch groupindex groups match pattern search split sub subn"),
    "re:Match": ("end endpos expand group groupdict groups lastgroup lastindex pos regs span start string"),
    "random:Random": (
        "betavariate choice choices expovariate gammavariate gauss getrandbits lognormvariate normalvariate"
        " paretovariate randbytes randint random randrange sample seed shuffle triangular uniform vonmisesvariate"
        " weibullvariate"
    ),
    "uuid:UUID": "hex int",
    "numpy:ndarray": (
        "T all any argmax argmin argpartition argsort astype choose clip compress conj conjugate copy cumprod cumsum"
        " diagonal dot dtype fill flat flatten imag item itemsize max mean min nbytes ndim nonzero partition prod put"
        " ravel real repeat reshape round searchsorted shape size sort squeeze std strides sum swapaxes take tobytes"
        " tolist trace transpose var"
    ),
    "numpy:generic": (
        "T all any argmax argmin argpartition argsort astype choose clip compress conj conjugate copy cumprod cumsum"
        " diagonal dot dtype fill flat flatten imag item itemsize max mean min nbytes ndim nonzero partition prod put"
        " ravel real repeat reshape round searchsorted shape size sort squeeze std strides sum swapaxes take tobytes"
        " tolist trace transpose var"
    ),
    "numpy:flatiter": "copy",
    "numpy:dtype": "name kind itemsize char str byteorder names",
    "numpy:ufunc": ("__call__ accumulate at identity nargs nin nout ntypes outer reduce reduceat signature"),
    "numpy:finfo": "bits dtype eps epsneg max min resolution tiny smallest_normal precision",
    "numpy:iinfo": "bits dtype max min",
    "numpy:poly1d": "__call__ c coef coefficients coeffs deriv integ o order r roots variable",
    "numpy.ma:MaskedArray": ("anom compressed count fill_value filled get_fill_value mask hardmask toflex recordmask"),
    "numpy.random:Generator": (
        "beta binomial bytes chisquare choice dirichlet exponential f gamma geometric gumbel hypergeometric integers"
        " laplace logistic lognormal logseries multinomial multivariate_hypergeometric multivariate_normal"
        " negative_binomial noncentral_chisquare noncentral_f normal pareto permutation permuted poisson power random"
        " rayleigh shuffle spawn standard_cauchy standard_exponential standard_gamma standard_normal standard_t"
        " triangular uniform vonmises wald weibull zipf"
    ),
    "numpy.random:RandomState": (
        "beta binomial bytes chisquare choice dirichlet exponential f gamma geometric gumbel hypergeometric laplace"
        " logistic lognormal logseries multinomial multivariate_normal negative_binomial noncentral_chisquare"
        " noncentral_f normal pareto permutation poisson power rand randint randn random random_integers random_sample"
        " rayleigh seed shuffle standard_cauchy standard_exponential standard_gamma standard_normal standard_t"
        " tomaxint triangular uniform vonmises wald weibull zipf"
    ),
    "numpy.random:SeedSequence": "entropy generate_state spawn",
    "numpy.polynomial._polybase:ABCPolyBase": (
        "__call__ basis copy cutdeg degree deriv fit fromroots has_samecoef has_samedomain has_sametype"
        " has_samewindow identity integ linspace mapparms maxpower roots symbol trim truncate"
    ),
    "numpy.lib._npyio_impl:NpzFile": "files close keys values items get",
    "numpy.lib.npyio:NpzFile": "files close keys values items get",
}

#: Classes whose objects may be arguments, but have no names that may be used.
HELD: Final = (
    "builtins:bytes_iterator builtins:dict_itemiterator builtins:dict_keyiterator builtins:dict_valueiterator"
    " builtins:enumerate builtins:generator builtins:list_iterator builtins:list_reverseiterator"
    " builtins:mappingproxy builtins:range_iterator builtins:reversed builtins:set_iterator"
    " builtins:str_ascii_iterator builtins:str_iterator builtins:tuple_iterator builtins:zip itertools:_tee"
    " itertools:accumulate itertools:batched itertools:combinations itertools:combinations_with_replacement"
    " itertools:compress itertools:count itertools:cycle itertools:groupby itertools:islice itertools:pairwise"
    " itertools:permutations itertools:product itertools:repeat itertools:zip_longest numpy:datetime64"
    " pathlib:PurePath re:RegexFlag"
)
