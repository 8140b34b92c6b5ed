"""The names of scipy and scikit-learn that dynamic calls may reach by default: exactly these."""

from __future__ import annotations

from typing import Final

#: By module: the functions, classes and constants that dynamic calls may name.
MODULES: Final[dict[str, str]] = {
    "scipy": "__version__",
    "scipy.stats": (
        "alexandergovern alpha anderson anderson_ksamp anglit ansari arcsine argus barnard_exact bartlett bayes_mvs"
        " bernoulli beta betabinom betanbinom betaprime binned_statistic binned_statistic_2d binom binomtest boltzmann"
        " boschloo_exact boxcox boxcox_llf bradford brunnermunzel burr burr12 cauchy chatterjeexi chi chi2"
        " chi2_contingency chisquare circmean circstd circvar combine_pvalues cosine cramervonmises_2samp crystalball"
        " cumfreq describe dgamma differential_entropy directional_stats dirichlet dlaplace dpareto_lognorm dunnett"
        " dweibull ecdf energy_distance entropy epps_singleton_2samp erlang expectile expon exponnorm exponpow"
        " exponweib f f_oneway false_discovery_control fatiguelife fisher_exact fisk fligner foldcauchy foldnorm"
        " friedmanchisquare gamma gausshyper gaussian_kde genexpon genextreme gengamma genhalflogistic genhyperbolic"
        " geninvgauss genlogistic gennorm genpareto geom gibrat gmean gompertz gstd gumbel_l gumbel_r gzscore"
        " halfcauchy halfgennorm halflogistic halfnorm hmean hypergeom hypsecant invgamma invgauss invweibull"
        " invwishart iqr irwinhall jarque_bera jf_skew_t johnsonsb johnsonsu kappa3 kappa4 kendalltau kruskal ks_2samp"
        " ksone kstat kstatvar kstest kstwo kstwobign kurtosis kurtosistest landau laplace laplace_asymmetric levene"
        " levy levy_l levy_stable linregress lmoment loggamma logistic loglaplace lognorm logser loguniform lomax"
        " mannwhitneyu matrix_normal maxwell median_abs_deviation median_test mielke mode moment mood moyal"
        " multinomial multivariate_hypergeom multivariate_normal multivariate_t mvsdist nakagami nbinom ncf"
        " nchypergeom_fisher nchypergeom_wallenius nct ncx2 nhypergeom norm normaltest norminvgauss obrientransform"
        " page_trend_test pareto pearson3 pearsonr percentileofscore planck pmean pointbiserialr poisson poisson_binom"
        " poisson_means_test power_divergence powerlaw powerlognorm powernorm quantile quantile_test randint rankdata"
        " ranksums rayleigh rdist recipinvgauss reciprocal rel_breitwigner relfreq rice scoreatpercentile sem"
        " semicircular shapiro siegelslopes sigmaclip skellam skew skewcauchy skewnorm skewtest somersd spearmanr"
        " studentized_range t theilslopes tiecorrect tmax tmean tmin trapezoid triang trim1 trim_mean trimboth"
        " truncexpon truncnorm truncpareto truncweibull_min tsem tstd ttest_1samp ttest_ind ttest_ind_from_stats"
        " ttest_rel tukey_hsd tukeylambda tvar uniform variation vonmises vonmises_line wald wasserstein_distance"
        " weibull_max weibull_min weightedtau wilcoxon wishart wrapcauchy yeojohnson yeojohnson_llf yulesimon zipf"
        " zipfian zmap zscore"
    ),
    "scipy.stats.qmc": "Halton LatinHypercube Sobol discrepancy scale",
    "scipy.linalg": (
        "bandwidth block_diag cho_factor cho_solve cholesky circulant companion convolution_matrix coshm cosm det dft"
        " diagsvd eig eigh eigh_tridiagonal eigvals eigvalsh eigvalsh_tridiagonal expm fractional_matrix_power"
        " hadamard hankel helmert hessenberg hilbert inv invhilbert invpascal ishermitian issymmetric khatri_rao"
        " leslie logm lstsq lu lu_factor matmul_toeplitz matrix_balance norm null_space orth orthogonal_procrustes"
        " pascal pinv pinvh polar qr rq schur signm sinhm sinm solve solve_banded solve_circulant solve_continuous_are"
        " solve_continuous_lyapunov solve_discrete_are solve_discrete_lyapunov solve_sylvester solve_toeplitz"
        " solve_triangular solveh_banded sqrtm subspace_angles svd svdvals tanhm tanm toeplitz"
    ),
    "scipy.fft": (
        "dct dctn dst dstn fft fft2 fftfreq fftn fftshift fht fhtoffset hfft hfft2 hfftn idct idctn idst idstn ifft"
        " ifft2 ifftn ifftshift ifht ihfft ihfft2 ihfftn irfft irfft2 irfftn next_fast_len prev_fast_len rfft rfft2"
        " rfftfreq rfftn"
    ),
    "scipy.special": (
        "agm airy airye bdtr bdtrc bdtri bdtrik bdtrin bei beip ber berp besselpoly beta betainc betaincc betainccinv"
        " betaincinv betaln binom boxcox boxcox1p btdtria btdtrib cbrt chdtr chdtrc chdtri chdtriv chndtr chndtridf"
        " chndtrinc chndtrix comb cosdg cosm1 cotdg dawsn digamma ellipe ellipeinc ellipj ellipk ellipkinc ellipkm1"
        " elliprc elliprd elliprf elliprg elliprj entr erf erfc erfcinv erfcx erfi erfinv eval_chebyc eval_chebys"
        " eval_chebyt eval_chebyu eval_gegenbauer eval_genlaguerre eval_hermite eval_hermitenorm eval_jacobi"
        " eval_laguerre eval_legendre eval_sh_chebyt eval_sh_chebyu eval_sh_jacobi eval_sh_legendre exp1 exp10 exp2"
        " expi expit expm1 expn exprel factorial factorial2 factorialk fdtr fdtrc fdtri fdtridfd fresnel gamma"
        " gammainc gammaincc gammainccinv gammaincinv gammaln gammasgn gdtr gdtrc gdtria gdtrib gdtrix hankel1"
        " hankel1e hankel2 hankel2e huber hyp0f1 hyp1f1 hyp2f1 hyperu i0 i0e i1 i1e inv_boxcox inv_boxcox1p it2i0k0"
        " it2j0y0 it2struve0 itairy iti0k0 itj0y0 itmodstruve0 itstruve0 iv ive j0 j1 jn jv jve k0 k0e k1 k1e kei keip"
        " kelvin ker kerp kl_div kn kolmogi kolmogorov kv kve lambertw log1p log_expit log_ndtr log_softmax"
        " log_wright_bessel loggamma logit logsumexp lpmv mathieu_a mathieu_b mathieu_cem mathieu_modcem1"
        " mathieu_modcem2 mathieu_modsem1 mathieu_modsem2 mathieu_sem modfresnelm modfresnelp modstruve multigammaln"
        " nbdtr nbdtrc nbdtri nbdtrik nbdtrin ncfdtr ncfdtri ncfdtridfd ncfdtridfn ncfdtrinc nctdtr nctdtridf"
        " nctdtrinc nctdtrit ndtr ndtri ndtri_exp nrdtrimn nrdtrisd obl_ang1 obl_ang1_cv obl_cv obl_rad1 obl_rad1_cv"
        " obl_rad2 obl_rad2_cv owens_t pbdv pbvv pbwa pdtr pdtrc pdtri pdtrik perm poch polygamma powm1 pro_ang1"
        " pro_ang1_cv pro_cv pro_rad1 pro_rad1_cv pro_rad2 pro_rad2_cv pseudo_huber psi radian rel_entr rgamma"
        " roots_chebyt roots_chebyu roots_hermite roots_laguerre roots_legendre round shichi sici sinc sindg smirnov"
        " smirnovi softmax spence spherical_in spherical_jn spherical_kn spherical_yn stdtr stdtridf stdtrit stirling2"
        " struve tandg tklmbda voigt_profile wofz wright_bessel wrightomega xlog1py xlogy y0 y1 yn yv yve zeta zetac"
    ),
    "scipy.signal": (
        "argrelextrema argrelmax argrelmin bessel bilinear butter buttord cheb1ord cheb2ord cheby1 cheby2 chirp"
        " coherence convolve convolve2d correlate correlate2d correlation_lags csd czt decimate deconvolve detrend"
        " ellip ellipord fftconvolve filtfilt find_peaks firwin firwin2 freqs freqz freqz_sos gausspulse get_window"
        " group_delay hilbert iirfilter iirnotch iirpeak istft kaiser_atten kaiser_beta kaiserord lfilter lfilter_zi"
        " lombscargle medfilt medfilt2d oaconvolve peak_prominences peak_widths periodogram remez resample"
        " resample_poly savgol_coeffs savgol_filter sawtooth sos2tf sos2zpk sosfilt sosfilt_zi sosfiltfilt spectrogram"
        " square stft tf2sos tf2zpk unit_impulse upfirdn welch wiener zpk2sos zpk2tf"
    ),
    "scipy.signal.windows": (
        "barthann bartlett blackman blackmanharris bohman boxcar chebwin cosine dpss exponential flattop gaussian"
        " general_cosine general_gaussian general_hamming get_window hamming hann kaiser kaiser_bessel_derived lanczos"
        " nuttall parzen taylor triang tukey"
    ),
    "scipy.spatial": "KDTree distance_matrix",
    "scipy.spatial.distance": (
        "braycurtis canberra cdist chebyshev cityblock correlation cosine dice directed_hausdorff euclidean hamming"
        " is_valid_dm is_valid_y jaccard jensenshannon mahalanobis minkowski num_obs_dm num_obs_y pdist rogerstanimoto"
        " russellrao seuclidean sokalsneath sqeuclidean squareform yule"
    ),
    "scipy.optimize": (
        "Bounds LinearConstraint isotonic_regression linear_sum_assignment linprog lsq_linear milp nnls"
    ),
    "scipy.integrate": "cumulative_simpson cumulative_trapezoid newton_cotes romb simpson trapezoid",
    "scipy.interpolate": (
        "Akima1DInterpolator BarycentricInterpolator CubicHermiteSpline CubicSpline KroghInterpolator"
        " LinearNDInterpolator NearestNDInterpolator PchipInterpolator RBFInterpolator RegularGridInterpolator"
        " griddata interp1d interpn make_interp_spline make_smoothing_spline pchip_interpolate lagrange"
    ),
    "scipy.ndimage": (
        "affine_transform binary_closing binary_dilation binary_erosion binary_fill_holes binary_opening"
        " binary_propagation black_tophat center_of_mass convolve convolve1d correlate correlate1d"
        " distance_transform_bf distance_transform_cdt distance_transform_edt extrema fourier_ellipsoid"
        " fourier_gaussian fourier_shift fourier_uniform gaussian_filter gaussian_filter1d gaussian_gradient_magnitude"
        " gaussian_laplace generate_binary_structure grey_closing grey_dilation grey_erosion grey_opening"
        " iterate_structure label laplace map_coordinates maximum maximum_filter maximum_filter1d maximum_position"
        " mean median median_filter minimum minimum_filter minimum_filter1d minimum_position morphological_gradient"
        " morphological_laplace percentile_filter prewitt rank_filter rotate shift sobel spline_filter spline_filter1d"
        " standard_deviation sum sum_labels uniform_filter uniform_filter1d variance white_tophat zoom"
    ),
    "scipy.sparse": (
        "block_array block_diag coo_array coo_matrix csc_array csc_matrix csr_array csr_matrix dia_array dia_matrix"
        " diags diags_array dok_array dok_matrix eye eye_array find hstack identity issparse kron kronsum lil_array"
        " lil_matrix rand random random_array tril triu vstack"
    ),
    "scipy.sparse.linalg": "bicg bicgstab cg eigs eigsh expm gmres inv lsmr lsqr minres norm spsolve svds",
    "scipy.sparse.csgraph": ("connected_components floyd_warshall laplacian minimum_spanning_tree shortest_path"),
    "scipy.cluster": "",
    "scipy.cluster.vq": "kmeans kmeans2 vq whiten",
    "scipy.cluster.hierarchy": "fcluster fclusterdata linkage",
    "scipy.constants": (
        "Avogadro Boltzmann Btu Btu_IT Btu_th G Julian_year N_A Planck R Rydberg Stefan_Boltzmann Wien acre alpha"
        " angstrom arcmin arcminute arcsec arcsecond astronomical_unit atm atmosphere atomic_mass atto au bar barrel"
        " bbl blob c calorie calorie_IT calorie_th carat centi day deci degree degree_Fahrenheit deka dyn dyne e eV"
        " electron_mass electron_volt elementary_charge epsilon_0 erg exa exbi femto fermi fine_structure fluid_ounce"
        " fluid_ounce_US fluid_ounce_imp foot g gallon gallon_US gallon_imp gas_constant gibi giga golden golden_ratio"
        " grain gram gravitational_constant h hbar hectare hecto horsepower hour hp inch k kgf kibi kilo"
        " kilogram_force kmh knot lb lbf light_year liter litre long_ton m_e m_n m_p m_u mach mebi mega metric_ton"
        " micro micron mil mile milli minute mmHg mph mu_0 nano nautical_mile neutron_mass ounce oz parsec pebi peta"
        " pi pico point pound pound_force proton_mass psi pt quecto quetta ronna ronto short_ton sigma slinch slug"
        " speed_of_light speed_of_sound stone survey_foot survey_mile tebi tera ton_TNT torr troy_ounce troy_pound u"
        " week yard year yobi yocto yotta zebi zepto zero_Celsius zetta convert_temperature value unit precision"
    ),
    "sklearn.base": "clone is_classifier is_clusterer is_outlier_detector is_regressor",
    "sklearn.calibration": "CalibratedClassifierCV calibration_curve",
    "sklearn.cluster": (
        "AffinityPropagation AgglomerativeClustering Birch BisectingKMeans DBSCAN FeatureAgglomeration HDBSCAN KMeans"
        " MeanShift MiniBatchKMeans OPTICS SpectralBiclustering SpectralClustering SpectralCoclustering"
        " affinity_propagation cluster_optics_dbscan cluster_optics_xi compute_optics_graph dbscan estimate_bandwidth"
        " k_means kmeans_plusplus linkage_tree mean_shift spectral_clustering ward_tree"
    ),
    "sklearn.compose": "ColumnTransformer TransformedTargetRegressor make_column_transformer",
    "sklearn.covariance": (
        "EllipticEnvelope EmpiricalCovariance GraphicalLasso GraphicalLassoCV LedoitWolf MinCovDet OAS"
        " ShrunkCovariance empirical_covariance fast_mcd graphical_lasso ledoit_wolf ledoit_wolf_shrinkage"
        " log_likelihood oas shrunk_covariance"
    ),
    "sklearn.cross_decomposition": "CCA PLSCanonical PLSRegression PLSSVD",
    "sklearn.datasets": (
        "load_breast_cancer load_diabetes load_digits load_iris load_linnerud load_wine make_biclusters make_blobs"
        " make_checkerboard make_circles make_classification make_friedman1 make_friedman2 make_friedman3"
        " make_gaussian_quantiles make_hastie_10_2 make_low_rank_matrix make_moons make_multilabel_classification"
        " make_regression make_s_curve make_sparse_coded_signal make_sparse_spd_matrix make_sparse_uncorrelated"
        " make_spd_matrix make_swiss_roll"
    ),
    "sklearn.decomposition": (
        "DictionaryLearning FactorAnalysis FastICA IncrementalPCA KernelPCA LatentDirichletAllocation"
        " MiniBatchDictionaryLearning MiniBatchNMF MiniBatchSparsePCA NMF PCA SparseCoder SparsePCA TruncatedSVD"
        " dict_learning dict_learning_online fastica non_negative_factorization sparse_encode"
    ),
    "sklearn.discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
    "sklearn.dummy": "DummyClassifier DummyRegressor",
    "sklearn.ensemble": (
        "AdaBoostClassifier AdaBoostRegressor BaggingClassifier BaggingRegressor ExtraTreesClassifier"
        " ExtraTreesRegressor GradientBoostingClassifier GradientBoostingRegressor HistGradientBoostingClassifier"
        " HistGradientBoostingRegressor IsolationForest RandomForestClassifier RandomForestRegressor"
        " RandomTreesEmbedding StackingClassifier StackingRegressor VotingClassifier VotingRegressor"
    ),
    "sklearn.feature_extraction": "DictVectorizer FeatureHasher grid_to_graph img_to_graph",
    "sklearn.feature_extraction.text": (
        "CountVectorizer HashingVectorizer TfidfTransformer TfidfVectorizer strip_accents_ascii strip_accents_unicode"
        " strip_tags"
    ),
    "sklearn.feature_selection": (
        "GenericUnivariateSelect RFE RFECV SelectFdr SelectFpr SelectFromModel SelectFwe SelectKBest SelectPercentile"
        " SequentialFeatureSelector VarianceThreshold chi2 f_classif f_oneway f_regression mutual_info_classif"
        " mutual_info_regression r_regression"
    ),
    "sklearn.gaussian_process": "GaussianProcessClassifier GaussianProcessRegressor",
    "sklearn.gaussian_process.kernels": (
        "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF"
        " RationalQuadratic Sum WhiteKernel"
    ),
    "sklearn.impute": "KNNImputer MissingIndicator SimpleImputer",
    "sklearn.inspection": "partial_dependence permutation_importance",
    "sklearn.isotonic": "IsotonicRegression isotonic_regression",
    "sklearn.kernel_approximation": "AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler SkewedChi2Sampler",
    "sklearn.kernel_ridge": "KernelRidge",
    "sklearn.linear_model": (
        "ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV Lasso LassoCV"
        " LassoLars LassoLarsCV LassoLarsIC LinearRegression LogisticRegression LogisticRegressionCV"
        " MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV OrthogonalMatchingPursuit"
        " OrthogonalMatchingPursuitCV PassiveAggressiveClassifier PassiveAggressiveRegressor Perceptron"
        " PoissonRegressor QuantileRegressor RANSACRegressor Ridge RidgeCV RidgeClassifier RidgeClassifierCV"
        " SGDClassifier SGDOneClassSVM SGDRegressor TheilSenRegressor TweedieRegressor enet_path lars_path"
        " lars_path_gram lasso_path orthogonal_mp orthogonal_mp_gram ridge_regression"
    ),
    "sklearn.manifold": (
        "ClassicalMDS Isomap LocallyLinearEmbedding MDS SpectralEmbedding TSNE locally_linear_embedding smacof"
        " spectral_embedding trustworthiness"
    ),
    "sklearn.metrics": (
        "accuracy_score adjusted_mutual_info_score adjusted_rand_score auc average_precision_score"
        " balanced_accuracy_score brier_score_loss calinski_harabasz_score class_likelihood_ratios"
        " classification_report cohen_kappa_score completeness_score confusion_matrix confusion_matrix_at_thresholds"
        " consensus_score coverage_error d2_absolute_error_score d2_brier_score d2_log_loss_score d2_pinball_score"
        " d2_tweedie_score davies_bouldin_score dcg_score det_curve euclidean_distances explained_variance_score"
        " f1_score fbeta_score fowlkes_mallows_score get_scorer_names hamming_loss hinge_loss"
        " homogeneity_completeness_v_measure homogeneity_score jaccard_score label_ranking_average_precision_score"
        " label_ranking_loss log_loss matthews_corrcoef max_error mean_absolute_error mean_absolute_percentage_error"
        " mean_gamma_deviance mean_pinball_loss mean_poisson_deviance mean_squared_error mean_squared_log_error"
        " mean_tweedie_deviance median_absolute_error metric_at_thresholds multilabel_confusion_matrix"
        " mutual_info_score nan_euclidean_distances ndcg_score normalized_mutual_info_score pair_confusion_matrix"
        " pairwise_distances pairwise_distances_argmin pairwise_distances_argmin_min pairwise_distances_chunked"
        " pairwise_kernels precision_recall_curve precision_recall_fscore_support precision_score r2_score rand_score"
        " recall_score roc_auc_score roc_curve root_mean_squared_error root_mean_squared_log_error silhouette_samples"
        " silhouette_score top_k_accuracy_score v_measure_score zero_one_loss"
    ),
    "sklearn.metrics.cluster": (
        "adjusted_mutual_info_score adjusted_rand_score calinski_harabasz_score completeness_score consensus_score"
        " contingency_matrix davies_bouldin_score entropy fowlkes_mallows_score homogeneity_completeness_v_measure"
        " homogeneity_score mutual_info_score normalized_mutual_info_score pair_confusion_matrix rand_score"
        " silhouette_samples silhouette_score v_measure_score"
    ),
    "sklearn.metrics.pairwise": (
        "additive_chi2_kernel check_paired_arrays check_pairwise_arrays chi2_kernel cosine_distances"
        " cosine_similarity euclidean_distances haversine_distances laplacian_kernel linear_kernel manhattan_distances"
        " nan_euclidean_distances paired_cosine_distances paired_distances paired_euclidean_distances"
        " paired_manhattan_distances pairwise_distances pairwise_distances_argmin pairwise_distances_argmin_min"
        " pairwise_distances_chunked pairwise_kernels polynomial_kernel rbf_kernel sigmoid_kernel"
    ),
    "sklearn.mixture": "BayesianGaussianMixture GaussianMixture",
    "sklearn.model_selection": (
        "FixedThresholdClassifier GridSearchCV GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut"
        " LeavePGroupsOut LeavePOut ParameterGrid ParameterSampler PredefinedSplit RandomizedSearchCV RepeatedKFold"
        " RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold StratifiedShuffleSplit"
        " TimeSeriesSplit TunedThresholdClassifierCV cross_val_predict cross_val_score cross_validate learning_curve"
        " permutation_test_score train_test_split validation_curve"
    ),
    "sklearn.multiclass": "OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier",
    "sklearn.multioutput": "ClassifierChain MultiOutputClassifier MultiOutputRegressor RegressorChain",
    "sklearn.naive_bayes": "BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB",
    "sklearn.neighbors": (
        "KNeighborsClassifier KNeighborsRegressor KNeighborsTransformer KernelDensity"
        " LocalOutlierFactor NearestCentroid NearestNeighbors NeighborhoodComponentsAnalysis RadiusNeighborsClassifier"
        " RadiusNeighborsRegressor RadiusNeighborsTransformer kneighbors_graph radius_neighbors_graph"
        " sort_graph_by_row_values"
    ),
    "sklearn.neural_network": "BernoulliRBM MLPClassifier MLPRegressor",
    "sklearn.pipeline": "FeatureUnion Pipeline make_pipeline make_union",
    "sklearn.preprocessing": (
        "Binarizer KBinsDiscretizer KernelCenterer LabelBinarizer LabelEncoder MaxAbsScaler MinMaxScaler"
        " MultiLabelBinarizer Normalizer OneHotEncoder OrdinalEncoder PolynomialFeatures PowerTransformer"
        " QuantileTransformer RobustScaler SplineTransformer StandardScaler TargetEncoder add_dummy_feature binarize"
        " label_binarize maxabs_scale minmax_scale normalize power_transform quantile_transform robust_scale scale"
    ),
    "sklearn.random_projection": "GaussianRandomProjection SparseRandomProjection johnson_lindenstrauss_min_dim",
    "sklearn.semi_supervised": "LabelPropagation LabelSpreading SelfTrainingClassifier",
    "sklearn.svm": "LinearSVC LinearSVR NuSVC NuSVR OneClassSVM SVC SVR l1_min_c",
    "sklearn.tree": ("DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor export_text"),
    "sklearn": "__version__ clone get_config",
}

#: By class, as module:name: the methods and attributes of its objects that dynamic calls may name.
TYPES: Final[dict[str, str]] = {
    "scipy.stats._distn_infrastructure:rv_generic": (
        "__call__ cdf entropy fit interval isf logcdf logpdf logpmf logsf mean median moment nnlf numargs pdf pmf ppf"
        " rvs sf shapes stats std support var"
    ),
    "scipy.stats._distn_infrastructure:rv_frozen": (
        "cdf entropy interval isf logcdf logpdf logpmf logsf mean median moment nnlf numargs pdf pmf ppf rvs sf"
        " shapes stats std support var"
    ),
    "scipy.stats._multivariate:multi_rv_generic": "__call__ cdf entropy logcdf logpdf logpmf mean pdf pmf rvs var cov",
    "scipy.stats._multivariate:multi_rv_frozen": "cdf entropy logcdf logpdf logpmf mean pdf pmf rvs var",
    "scipy.stats._kde:gaussian_kde": "__call__ evaluate integrate_box integrate_box_1d logpdf pdf resample",
    "scipy.stats._qmc:QMCEngine": "integers random reset fast_forward",
    "scipy.sparse._base:_spbase": (
        "T argmax argmin astype conj conjugate copy count_nonzero diagonal dot dtype format getcol getnnz getrow max"
        " maximum mean min minimum multiply ndim nnz nonzero power reshape shape size sum toarray tocoo tocsc tocsr"
        " todense todia todok tolil trace transpose"
    ),
    "scipy.interpolate._polyint:_Interpolator1D": "__call__ antiderivative derivative integrate roots solve",
    "scipy.interpolate._interpolate:PPoly": "__call__ antiderivative derivative integrate roots solve",
    "scipy.interpolate._bsplines:BSpline": "__call__ antiderivative derivative integrate roots solve",
    "scipy.interpolate._interpolate:interp1d": "__call__",
    "scipy.interpolate._rgi:RegularGridInterpolator": "__call__",
    "scipy.interpolate._rbfinterp:RBFInterpolator": "__call__",
    "scipy.interpolate._ndgriddata:NearestNDInterpolator": "__call__",
    "scipy.interpolate._interpnd:NDInterpolatorBase": "__call__",
    "scipy.spatial._kdtree:KDTree": (
        "count_neighbors query query_ball_point query_ball_tree query_pairs sparse_distance_matrix"
    ),
    "scipy.optimize._constraints:Bounds": "lb ub",
    "sklearn.base:BaseEstimator": (
        "aic apply bic correct_covariance cost_complexity_pruning_path criterion dbscan_clustering decision_function"
        " decision_path decode densify error_norm fit fit_predict fit_transform get_covariance get_depth"
        " get_feature_names_out get_indices get_metadata_routing get_n_leaves get_params get_precision get_shape"
        " get_stop_words get_submatrix get_support gibbs inverse_transform kneighbors kneighbors_graph"
        " latent_mean_and_variance log_marginal_likelihood mahalanobis max_features partial_fit path perplexity"
        " positive predict predict_joint_log_proba predict_log_proba predict_proba radius_neighbors"
        " radius_neighbors_graph reconstruction_error restrict reweight_covariance sample sample_y score score_samples"
        " set_fit_request set_inverse_transform_request set_output set_params set_partial_fit_request"
        " set_predict_request set_score_request set_transform_request sparsify staged_decision_function staged_predict"
        " staged_predict_proba staged_score transform"
    ),
    "sklearn.model_selection._split:BaseCrossValidator": "get_n_splits split get_metadata_routing",
    "sklearn.model_selection._split:BaseShuffleSplit": "get_n_splits split get_metadata_routing",
    "sklearn.model_selection._split:_RepeatedSplits": "get_n_splits split get_metadata_routing",
    "sklearn.gaussian_process.kernels:Kernel": (
        "__call__ bounds clone_with_theta diag get_params is_stationary n_dims requires_vector_input set_params theta"
    ),
}

HELD: Final = (
    "scipy.optimize._constraints:LinearConstraint sklearn.model_selection._search:ParameterGrid"
    " sklearn.model_selection._search:ParameterSampler"
)
